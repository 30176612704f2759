"""The programs that are measured, behind one face. Another program is added as one more subclass of `Peer` and a line in `PEERS`."""

from __future__ import annotations

import abc
import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from measuring.lan import INTERFACE, Desk


class GaveUp(Exception):
    """Something that was waited for did not happen; the message says what, and where the logs are."""


def until(condition: Callable[[], bool], limit_s: float, what: str, every_s: float = 0.01) -> None:
    """Return once `condition()` holds. Raises: GaveUp, after `limit_s`."""
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end:
            raise GaveUp(f"{what}: not within {limit_s:g} s")
        time.sleep(every_s)


class Peer(abc.ABC):
    """A program that keeps one folder the same on two desks, with its state below `home/a` and `home/b`."""

    name: str

    def __init__(self, program: str, desks: tuple[Desk, Desk], home: Path) -> None:
        self.program, self.desks, self.home = program, desks, home
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    @abc.abstractmethod
    def command(self, desk: Desk) -> list[str]:
        """The command that runs the program in the foreground."""

    @abc.abstractmethod
    def pair(self) -> tuple[Path, Path]:
        """Make the two share a folder; where it is on each desk, once the second has it."""

    @abc.abstractmethod
    def ready(self, desk: Desk) -> bool:
        """Whether the program on this desk answers."""

    @abc.abstractmethod
    def connected(self, desk: Desk) -> bool:
        """Whether the program on this desk has the other one on the line."""

    @abc.abstractmethod
    def settle(self) -> None:
        """Return when both sides have nothing left to do."""

    def start(self, desk: Desk) -> None:
        """Start it; returns at once."""
        (self.home / desk.name).mkdir(parents=True, exist_ok=True)
        with (self.home / f"{desk.name}.log").open("ab") as log:
            self.running[desk.name] = subprocess.Popen(
                self.command(desk), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | self.environment(desk)
            )

    def environment(self, desk: Desk) -> Mapping[str, str]:
        """Variables that the program needs besides the usual ones."""
        return {"HOME": str(self.home / desk.name)}

    def stop(self) -> None:
        """End both processes, by force if they do not end when asked."""
        for process in self.running.values():
            process.send_signal(signal.SIGTERM)
        for process in self.running.values():
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.running.clear()

    def pids(self) -> tuple[int, int]:
        """The process ids, the sender's first."""
        first, second = (self.running[desk.name].pid for desk in self.desks)
        return first, second


class P2psync(Peer):
    """p2psync, driven through its command line, observed through its status socket."""

    name = "p2psync"
    mandate = "Bench"

    def command(self, desk: Desk) -> list[str]:
        # A port of its own at every start, so that a remembered address leads nowhere and only mDNS does.
        return desk.command(self.program, "run", "--interface", INTERFACE, "--listen", f"{desk.address}:0")

    def environment(self, desk: Desk) -> Mapping[str, str]:
        place = self.home / desk.name
        return {"P2PSYNC_HOME": str(place / "state"), "P2PSYNC_SOCKET": str(self._socket(desk)), "P2PSYNC_FOLDERS": str(place)}

    def pair(self) -> tuple[Path, Path]:
        first, second = self.desks
        here = self.home / first.name / "books"
        here.mkdir()
        (here / "README.txt").write_text("The folder that is measured.\n", encoding="utf-8")
        ticket = self.home / "bench.crsync"
        for words in (["create", self.mandate], ["attach", self.mandate, str(here)], ["share", self.mandate]):
            self._cli(first, *words)
        self._cli(first, "invite", self.mandate, "--for", "Bruno", "-o", str(ticket))
        self._cli(second, "subscribe", str(ticket), "--as", "Bruno")
        until(lambda: self._location(second) is not None, 30, "the other side gets the folder", 0.05)
        there = Path(self._location(second) or "")
        until((there / "README.txt").exists, 30, "the other side gets the first file", 0.05)
        return here, there

    def ready(self, desk: Desk) -> bool:
        return self._status(desk) is not None

    def connected(self, desk: Desk) -> bool:
        return any(who["online"] for mandate in self._mandates(desk) for who in mandate["participants"] if not who["self"])

    def settle(self) -> None:
        for desk in self.desks:
            self._cli(desk, "wait", self.mandate, "--timeout", "300")

    def _location(self, desk: Desk) -> str | None:
        found = [attached["location"] for mandate in self._mandates(desk) for attached in mandate["attachments"]]
        return found[0] if found else None

    def _mandates(self, desk: Desk) -> list[dict[str, Any]]:
        return list((self._status(desk) or {}).get("mandates", []))

    def _status(self, desk: Desk) -> dict[str, Any] | None:
        connection = _OverUnix(self._socket(desk))
        try:
            connection.request("GET", "/v1/status", headers={"Host": "p2psync"})
            answer = json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        return answer if isinstance(answer, dict) else None

    def _cli(self, desk: Desk, *words: str) -> None:
        done = subprocess.run(
            [self.program, *words],
            env=os.environ | self.environment(desk),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode not in (0, 4):
            raise GaveUp(f"p2psync {' '.join(words)} said ({done.returncode}): {(done.stderr or done.stdout).strip()}")

    def _socket(self, desk: Desk) -> Path:
        return self.home / desk.name / "socket"


class _OverUnix(http.client.HTTPConnection):
    """HTTP over a Unix domain socket, as curl --unix-socket does it."""

    def __init__(self, path: Path) -> None:
        super().__init__("p2psync", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(str(self._path))


PEERS: dict[str, type[Peer]] = {P2psync.name: P2psync}
