"""Two real daemons on the loopback interface, of which one is killed at a chosen I/O step; and what must be so when they are at rest."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from tests.real import claims
from tests.real.iosteps import How, Step, Steps
from tests.real.machines import files_below, is_whole
from tests.real.powercut import LoopDisk
from tests.story.desks import PATIENCE, Desk, until

BOOKS = "Dupont SA"
REST_S = 20.0
"""So long the two may take to be at rest again after a kill."""
LARGE = 1 << 20
"""A larger file is read again only when its stamp has changed."""
MOST_TOLD = 2000
"""A history tells no more than these, the latest."""
QUIET_S = 0.25
"""A scenario whose step was not reached is over when nothing was done for so long."""


class Machine(Desk):
    """A desk whose daemon can be killed at a step; its mandates' folders are below ``place``."""

    def __init__(self, person: str, place: Path) -> None:
        super().__init__(person, place)
        self.steps = Steps(place.parent, person, place)
        self._port = _free_port()

    def environment(self) -> dict[str, str]:
        return super().environment() | self.steps.environment

    def up(self) -> Machine:
        """Start the daemon, always at the same port: two that start anew find each other again without mDNS."""
        self.start("--no-mdns", "--listen", f"127.0.0.1:{self._port}")
        return self

    def end(self) -> None:
        """Stop the daemon as its system does, and wait for it (strace passes the signal on to nobody)."""
        pids = Path(self.state, "daemon.lock").read_text().split()
        os.kill(int(pids[0]), signal.SIGTERM)

    def signal(self, number: signal.Signals) -> None:
        """Stop the process, or let it go on."""
        assert self.process is not None
        self.process.send_signal(number)

    @property
    def folder(self) -> Path:
        """Where the books are."""
        return self.place / BOOKS

    def versions(self, name: str, mandate: str = BOOKS) -> list[dict[str, Any]]:
        """The history of a file, the latest first."""
        return list(self.get(f"/v1/history?{urlencode({'mandate': mandate, 'name': name}, quote_via=quote)}").get("versions", ()))


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Watching:
    """Reads every file below a folder over and over: each is one whole version that a program wrote (I1)."""

    def __init__(self, folder: Path) -> None:
        self.reads, self.faults = 0, set[str]()
        self._folder = folder
        self._steady: set[str] = set()
        self._large: dict[Path, tuple[int, int, int, int]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def always(self, *names: str) -> None:
        """From now on these are never absent; none: nothing is promised."""
        self._steady = set(names)

    def __enter__(self) -> Watching:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Look no more; harmless when done twice."""
        self._stop.set()
        self._thread.join()
        if not self.reads and any(files_below(self._folder)):
            self.faults.add("nobody looked")

    def _watch(self) -> None:
        while not self._stop.wait(0.004 * PATIENCE):
            steady = self._steady
            for folder, _, names in os.walk(self._folder):  # which takes folders that go meanwhile for empty
                for name in names:
                    if not name.startswith((".p2psync", "~")):
                        self._read(Path(folder, name))
            for name in steady & self._steady:
                if not (self._folder / name).exists():
                    self.faults.add(f"“{name}” was not there")

    def _read(self, path: Path) -> None:
        with suppress(OSError):  # renamed while we look, or a folder
            stamp = path.stat()
            kept = (stamp.st_ino, stamp.st_size, stamp.st_mtime_ns, stamp.st_ctime_ns)
            if stamp.st_size > LARGE and self._large.get(path) == kept:
                return
            self.reads += 1
            data = path.read_bytes()
            if not is_whole(data):
                self.faults.add(f"“{path.name}” held {len(data)} bytes that nobody wrote")
            self._large[path] = kept


class Pair:
    """Anna, who owns the books, and Bruno, who takes part; ``victim`` is the one that is killed, ``other`` stays."""

    def __init__(self, top: Path, victim: str = "Bruno", disk: LoopDisk | None = None) -> None:
        top.mkdir(parents=True, exist_ok=True)
        self.top, self.disk = top, disk
        self.anna, self.bruno = Machine("Anna", top / "anna"), Machine("Bruno", top / "bruno")
        self.victim, self.other = (self.anna, self.bruno) if victim == "Anna" else (self.bruno, self.anna)
        self.notes: dict[str, Any] = {}

    def begin(self) -> Pair:
        """Start both."""
        for desk in (self.anna, self.bruno):
            desk.up()
        for desk in (self.anna, self.bruno):
            desk.answers()
        return self

    def end(self) -> None:
        """Stop both, however things are."""
        for desk in (self.anna, self.bruno):
            with suppress(ProcessLookupError):
                if desk.alive:
                    desk.signal(signal.SIGCONT)
            desk.kill()
        if self.disk is not None:
            self.disk.close()

    def join(self, *names: str, mandate: str = BOOKS) -> None:
        """Make the books with these files and folders of Anna's in them, and have Bruno subscribe."""
        folder = self.anna.place / mandate
        self.anna.does("create", mandate, *(folder / name for name in names), "--folder", folder)
        self.anna.does("share", mandate)
        self.bruno.does("subscribe", self.ticket(mandate), "--as", "Bruno")
        self.rest(mandate)

    def ticket(self, mandate: str) -> Path:
        """A new ticket for Bruno."""
        file = self.top / f"{time.monotonic_ns()}.crsync"
        self.anna.does("invite", mandate, "--for", "Bruno", "-o", file)
        return file

    # ---- at rest

    def rest(self, mandate: str = BOOKS, limit_s: float = REST_S) -> None:
        """Wait until both are there, see each other up to date, and have nothing to do."""
        for desk in (self.anna, self.bruno):
            desk.until(f"everybody is up to date in {mandate}", lambda desk=desk: _is_at_rest(desk, mandate), limit_s)  # type: ignore[misc]
        for desk in (self.anna, self.bruno):
            desk.does("wait", mandate, "--timeout", f"{10 * PATIENCE:g}")

    def faults(self, mandate: str = BOOKS) -> list[str]:
        """What is wrong now that they are at rest: bytes, leftovers, claims, history, log."""
        here, there = files_below(self.anna.place / mandate), files_below(self.bruno.place / mandate)
        found = [f"“{name}” differs" for name in sorted({*here, *there}) if here.get(name) != there.get(name)]
        for desk in (self.anna, self.bruno):
            found += [f"{desk.person}: {path.name} was left" for path in (desk.place / mandate).rglob(".p2psync*")]
            found += [f"{desk.person}: {fault}" for fault in claims.settled(desk.state)]
            said = desk.log()
            found += [f"{desk.person}'s log: {said[-1500:]}"] if re.search("Traceback|ERROR|CRITICAL", said) else []
        found += self._unkept(mandate)
        return found

    def _unkept(self, mandate: str) -> list[str]:
        """Versions in the history that neither can bring back (I2), and what the two tell differently."""
        told = [
            {str(v["version"]): v for v in desk.get(f"/v1/history?mandate={quote(mandate)}")["versions"]}
            for desk in (self.anna, self.bruno)
        ]
        found = []
        if max(map(len, told)) < MOST_TOLD:
            found = [f"version {v} is known to one only" for v in told[0].keys() ^ told[1].keys()]
        both = told[0].keys() & told[1].keys()
        return found + [f"{v} is lost" for v in both if told[0][v].get("size") and not (told[0][v]["kept"] or told[1][v]["kept"])]

    # ---- the kill

    def struck(self, act: Any, at: int, how: How) -> Step | None:
        """Do ``act`` with the victim to be killed at a step; that step, or None when it was not reached."""
        self.victim.steps.begin(at, how)
        act()
        until("the victim is dead, or all is done", lambda: not self.victim.alive or self.is_over(), REST_S, self.victim.log)
        if self.victim.alive:
            self.victim.steps.end()
            return None
        assert self.victim.process is not None
        assert self.victim.process.wait() == -signal.SIGKILL, self.victim.log()
        return next(step for step in self.victim.steps.end() if step.number == at)

    def is_over(self) -> bool:
        """Whether it has begun, and nobody has anything to do, or to tell the other, and that for a moment."""
        with suppress(OSError, http.client.HTTPException):
            before, deadline = self.victim.steps.count, time.monotonic() + QUIET_S * PATIENCE
            while before and self.victim.alive and self.victim.steps.count == before and self._idle():
                if time.monotonic() > deadline:
                    return True
                time.sleep(0.02 * PATIENCE)
        return False

    def _idle(self) -> bool:
        found = [m for desk in (self.anna, self.bruno) if desk.process for m in desk.status()["mandates"]]
        others = [p for m in found for p in m["participants"] if not p["self"]]
        return not any(m["busy"] or m["incoming"]["files"] for m in found) and all(p["online"] and p["in_sync"] for p in others)


def _is_at_rest(desk: Machine, mandate: str) -> bool:
    others = [p for p in desk.mandate(mandate).get("participants", ()) if not p["self"]]
    return bool(others) and all(p["in_sync"] for p in others) and not any(m["busy"] for m in desk.status()["mandates"])


def save(path: Path, data: bytes) -> None:
    """As programs do: a new file takes the old one's name."""
    new = path.with_name(f"~{path.name}.tmp")
    new.parent.mkdir(parents=True, exist_ok=True)
    new.write_bytes(data)
    os.replace(new, path)
