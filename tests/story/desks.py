"""Desks for stories: a real daemon each, on the loopback interface, and the command line of the person who sits there."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from p2psync.cli.main import main

P2PSYNC = [sys.executable, "-c", "import sys; from p2psync.cli.main import main; sys.exit(main())"]
PATIENCE = float(os.environ.get("P2PSYNC_PATIENCE", "1"))
"""What is waited for may take so many times as long, and is asked for so much less often: for a machine that has much else to do."""
_EVERY_S = 0.02 * PATIENCE
_PASSING = {"last_seen", "busy", "since", "disks"}
"""What a status says that may differ though nothing was changed."""


class Said(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


def until(what: str, holds: Callable[[], Any], limit_s: float = 30.0, explain: Callable[[], str] = lambda: "") -> Any:
    """What ``holds`` returns, as soon as it is something; fails, in words, after ``limit_s``."""
    limit_s *= PATIENCE
    deadline = time.monotonic() + limit_s
    while not (found := holds()):
        if time.monotonic() > deadline:
            raise AssertionError(f"after {limit_s:g} s it is still not so that {what}\n{explain()}")
        time.sleep(_EVERY_S)
    return found


def run(*words: str | Path) -> Said:
    """The command line, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([str(word) for word in words])
        except SystemExit as e:  # argparse
            code = e.code if isinstance(e.code, int) else 1
    return Said(code, out.getvalue(), err.getvalue())


class Desk:
    """One person's daemon and files below ``place``: the state in ``state``, everything else is theirs."""

    def __init__(self, person: str, place: Path, options: Sequence[str] = ("--interface", "lo", "--listen", "127.0.0.1:0")) -> None:
        self.person, self.place, self.options = person, place, options
        self.state, self.socket = place / "state", place / "socket"
        self.process: subprocess.Popen[bytes] | None = None
        self.within: list[str] = []  # the command that the daemon is started by
        self.first = ""  # what is done in its process before it begins
        place.mkdir(parents=True, exist_ok=True)

    # ---- the daemon

    def start(self, *options: str) -> Desk:
        python, option, code = P2PSYNC
        words = [*self.within, python, option, self.first + code, "run", *self.options, *options]
        with (self.place.parent / f"{self.person}.log").open("ab") as log:
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment())
        return self

    def answers(self) -> Desk:
        def holds() -> bool:
            assert self.process is not None and self.process.poll() is None, f"{self.person}'s daemon has ended\n{self.log()}"
            with contextlib.suppress(OSError, http.client.HTTPException):
                return bool(self.status())
            return False

        until(f"{self.person}'s daemon answers", holds)
        return self

    @property
    def alive(self) -> bool:
        """Whether the daemon runs."""
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """As a power cut does to a process: no goodbye, nothing tidied up. Harmless when it is dead."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> int:
        """Ask the daemon to end, and insist after a while; its exit code."""
        if self.process is None:
            return 0
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(15 * PATIENCE)
        self.kill()
        return self.process.returncode

    def environment(self) -> dict[str, str]:
        own = {
            "PYTHONPATH": os.pathsep.join(sys.path),
            "P2PSYNC_HOME": str(self.state),
            "P2PSYNC_SOCKET": str(self.socket),
            "P2PSYNC_FOLDERS": str(self.place),
            "LC_ALL": "C.UTF-8",
        }
        return os.environ | own

    def log(self) -> str:
        return (self.place.parent / f"{self.person}.log").read_text(errors="replace")

    # ---- the person

    def says(self, *words: str | Path) -> Said:
        """What the command line says to these words on this machine."""
        return run(*words, "--home", self.state, "--socket", self.socket)

    def does(self, *words: str | Path, code: int = 0) -> str:
        """As ``says``, for what has to succeed."""
        said = self.says(*words)
        assert said.code == code, (
            f"{self.person}$ p2psync {' '.join(map(str, words))} ended with {said.code}:\n{said.out}{said.err}\n{self.log()}"
        )
        return said.out + said.err

    def until(self, what: str, holds: Callable[[], Any], limit_s: float = 30.0) -> Any:
        return until(
            f"{self.person}: {what}", holds, limit_s, lambda: json.dumps(self.status(), indent=1, ensure_ascii=False) + self.log()[-3000:]
        )

    # ---- what can be seen of it

    def status(self) -> dict[str, Any]:
        return dict(self.get("/v1/status"))

    def mandate(self, name: str) -> dict[str, Any]:
        return next((dict(m) for m in self.status()["mandates"] if m["name"] == name), {})

    def attachment(self, mandate: str, name: str) -> dict[str, Any]:
        return next((dict(a) for a in self.mandate(mandate).get("attachments", ()) if a["name"] == name), {})

    def attention(self, mandate: str) -> dict[str, dict[str, Any]]:
        """Everything in a mandate that is not up to date, by its name."""
        return {one["name"]: dict(one) for a in self.mandate(mandate).get("attachments", ()) for one in a["attention"]}

    def get(self, path: str) -> Any:
        connection = _OverUnix(self.socket)
        try:
            connection.request("GET", path)
            answer = connection.getresponse().read()
            return answer.decode() if path == "/metrics" else json.loads(answer)
        finally:
            connection.close()

    def content_bytes(self, direction: str) -> int:
        """Bytes of files that came "in" or went "out" since the daemon started."""
        found = re.findall(rf'p2psync_content_bytes_total\{{.*direction="{direction}"\}} (\d+)', self.get("/metrics"))
        return sum(map(int, found))

    def settled(self) -> None:
        """Wait until the daemon has nothing left to do about what is on this disk."""
        self.until("nothing is being done", lambda: not any(m["busy"] for m in self.status()["mandates"]))

    def everything(self) -> dict[str, Any]:
        """All that a refused command must leave as it was: the status, the histories, the open tickets, every file and every folder."""
        status = self.status()
        ids = [m["id"] for m in status["mandates"]]
        return {
            "status": _lasting(status),
            "history": {one: self.get(f"/v1/history?mandate={one}") for one in ids},
            "tickets": {one: self.get(f"/v1/participants?mandate={one}")["tickets"] for one in ids},
            "state": sorted(str(p.relative_to(self.state)) for kept in ("mandates", "joining") for p in (self.state / kept).iterdir()),
            "disk": dict(_disk(self.place, self.state)),
        }


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lasting(one) for key, one in value.items() if key not in _PASSING}
    return [_lasting(one) for one in value] if isinstance(value, list) else value


def _disk(place: Path, state: Path) -> Iterator[tuple[str, object]]:
    for folder, folders, files in os.walk(place):
        folders[:] = [name for name in folders if Path(folder, name) != state]
        for name in folders:
            yield str(Path(folder, name)), "folder"
        for name in files:
            path = Path(folder, name)
            plain = path.is_file() and not path.is_symlink()
            yield str(path), (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino) if plain else os.lstat(path).st_mode


class _OverUnix(http.client.HTTPConnection):
    """HTTP over a Unix socket, as curl --unix-socket speaks it."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(str(self._path))
