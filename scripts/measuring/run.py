"""One run: every program is started on a network of its own, and each work is done by all of them in turn."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from measuring.lan import lan
from measuring.limits import limits
from measuring.peer import GaveUp
from measuring.report import MACHINE, Report
from measuring.session import Session, Size, confirm_same
from measuring.works import ALONE, LIMITS, PROGRAMS, TOGETHER, WORKS


@dataclass
class Run:
    """What all works of one run share; `do` does them."""

    size: Size
    report: Report
    disk: Path
    rate: str
    sessions: dict[str, Session] = field(default_factory=dict)

    def do(self, works: Sequence[str], programs: Sequence[str]) -> None:
        """Each work by all programs before the next work; a program that fails is left out of the rest of the run."""
        with contextlib.ExitStack() as stack:
            if set(works) - set(ALONE):
                self._open(stack, programs)
            for work in works:
                self._say(work)
                if work == LIMITS:
                    self._limits()
                elif work in ALONE:
                    for name in programs:
                        self._alone(name, work)
                elif work in TOGETHER:
                    with ThreadPoolExecutor(len(PROGRAMS)) as together:
                        list(together.map(lambda name, work=work: self._work(name, work), list(self.sessions)))
                else:
                    for name in list(self.sessions):
                        self._work(name, work)
            for name, session in list(self.sessions.items()):
                with self._guard(name, "comparison", session.home):
                    session.peer.wake()
                    confirm_same(session)

    def _open(self, stack: contextlib.ExitStack, programs: Sequence[str]) -> None:
        for name in programs:
            self._say(f"start {name}")
            home = stack.enter_context(self._home())
            with self._guard(name, "start", home):
                self.sessions[name] = stack.enter_context(self._session(name, home, 2))
                self.sessions[name].peer.rest()

    def _limits(self) -> None:
        for session in list(self.sessions.values())[:1]:
            self.report.add(MACHINE, limits(session.peer.desks, session.scratch, self.size))

    def _alone(self, name: str, work: str) -> None:
        """A work that makes networks of its own."""
        if work in PROGRAMS[name].works:
            with self._home() as home, self._guard(name, work, home):
                self.report.add(name, ALONE[work](lambda members: self._session(name, home, members), self.size))

    def _work(self, name: str, work: str) -> None:
        session = self.sessions[name]
        if work in session.peer.works:
            with self._guard(name, work, session.home):
                session.peer.wake()
                self.report.add(name, WORKS[work](session, self.size))
                session.peer.rest()

    @contextlib.contextmanager
    def _session(self, name: str, home: Path, members: int) -> Iterator[Session]:
        with contextlib.ExitStack() as stack:
            desks = stack.enter_context(lan(name, members, self.rate))
            place = home / f"{members}-desks"
            peer = PROGRAMS[name](desks, place)
            stack.callback(peer.stop)
            (place / "scratch").mkdir()
            yield Session(peer, peer.open(), place)

    @contextlib.contextmanager
    def _home(self) -> Iterator[Path]:
        home = Path(tempfile.mkdtemp(prefix="p2psync-bench-", dir=self.disk))
        try:
            yield home
        finally:
            shutil.rmtree(home, ignore_errors=True)

    @contextlib.contextmanager
    def _guard(self, name: str, what: str, home: Path) -> Iterator[None]:
        """A failure of one program is reported, with the end of its logs, and stops nobody else."""
        try:
            yield
        except GaveUp as given_up:
            self.report.failures.append(f"{name}, {what}: {given_up}")
            self.sessions.pop(name, None)
            print(f"{name}, {what}: {given_up}", file=sys.stderr)
            for log in sorted(home.glob("*/*.log")):
                print(f"-- the end of {log.name}", *log.read_text(errors="replace").splitlines()[-30:], sep="\n", file=sys.stderr)

    def _say(self, what: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {what}", flush=True)
