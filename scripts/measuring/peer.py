"""A program that is measured, behind one face. Another program is added as one more subclass and a line in `programs.py`."""

from __future__ import annotations

import abc
import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from measuring.lan import Desk
from measuring.process import tree

FIRST = "README.txt"
"""The file that is there from the beginning."""


class GaveUp(Exception):
    """Something that was waited for did not happen, or a byte differs; the message says what."""


def until(condition: Callable[[], bool], limit_s: float, what: str, every_s: float = 0.01) -> None:
    """Return once `condition()` holds. Raises: GaveUp, after `limit_s`."""
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end:
            raise GaveUp(f"{what}: not within {limit_s:g} s")
        time.sleep(every_s)


class Peer(abc.ABC):
    """A program that keeps one folder the same on several desks, with its state below `home/DESK`."""

    name: str
    program: str
    settings: str
    """What differs from the program as it is installed, for the report."""
    works: frozenset[str]
    """The works that make sense for it."""

    def __init__(self, desks: Sequence[Desk], home: Path) -> None:
        self.desks, self.home = desks, home
        self.running: dict[str, subprocess.Popen[str]] = {}
        for desk in desks:
            self.place(desk).mkdir(parents=True)

    @classmethod
    @abc.abstractmethod
    def version(cls) -> str:
        """What the program says of itself."""

    @abc.abstractmethod
    def command(self, desk: Desk) -> list[str]:
        """The command that runs the program in the foreground on this desk."""

    @abc.abstractmethod
    def open(self) -> list[Path]:
        """Start it everywhere and make all desks share a folder; where it is on each desk, once it is the same everywhere."""

    @abc.abstractmethod
    def settle(self) -> None:
        """Return when all sides have nothing left to do."""

    def connected(self, desk: Desk) -> bool:
        """Whether the program on this desk has all the others on the line."""
        return True

    def up_to_date(self, desk: Desk) -> bool:
        """Whether the program on this desk has gone through all its files and knows that the others have the same."""
        return True

    def notice(self) -> None:
        """A file was changed on the first desk. Nothing to do for a program that watches."""

    def ask(self, desk: Desk) -> bool:
        """Ask it how things stand, as a page would; whether it answered. For those that have the work "ask"."""
        return False

    def start(self, desk: Desk) -> None:
        """Start it; returns at once."""
        with (self.home / f"{desk.name}.log").open("ab") as log:
            self.running[desk.name] = subprocess.Popen(
                self.command(desk),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if self.talks(desk) else log,
                stderr=log,
                cwd=self.place(desk),  # not ours: a program must not find itself in the sources beside the bench
                env=os.environ | self.environment(desk),
                text=True,
            )

    def talks(self, desk: Desk) -> bool:
        """Whether what it prints is read rather than logged."""
        return False

    def place(self, desk: Desk) -> Path:
        """Where everything of this desk is."""
        return self.home / desk.name

    def folder(self, desk: Desk) -> Path:
        """The folder of this desk that is measured."""
        return self.place(desk) / "books"

    def make_folders(self) -> list[Path]:
        """Make it on every desk, with a first file on the first one."""
        folders = [self.folder(desk) for desk in self.desks]
        for folder in folders:
            folder.mkdir()
        (folders[0] / FIRST).write_text("The folder that is measured.\n", encoding="utf-8")
        return folders

    def listens(self, desk: Desk, port: int | str) -> bool:
        """Whether somebody takes connections at this port of a desk."""
        return bool(subprocess.run(desk.command("ss", "-Hltn", f"sport = :{port}"), capture_output=True, check=True).stdout)

    def environment(self, desk: Desk) -> Mapping[str, str]:
        """Variables that the program needs besides the usual ones."""
        return {"HOME": str(self.place(desk))}

    def stop(self) -> None:
        """End all processes, by force if they do not end when asked."""
        self.wake()
        for process in self.running.values():
            process.send_signal(signal.SIGTERM)
        for process in self.running.values():
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
            process.communicate()
        self.running.clear()

    def kill(self, desk: Desk) -> None:
        """kill -9, of it and its children (a server's child would go on without it)."""
        process = self.running.pop(desk.name)
        for pid in list(tree([process.pid])):
            os.kill(pid, signal.SIGKILL)
        process.communicate()

    def rest(self) -> None:
        """Be quiet while the others are measured; those that sleep when nothing happens need not do anything."""

    def wake(self) -> None:
        """It is its turn again."""

    def pids(self, desk: Desk) -> list[int]:
        """The processes to count on this desk; their children are counted too."""
        return [self.running[desk.name].pid]


class OverUnix(http.client.HTTPConnection):
    """HTTP over a Unix domain socket, as curl --unix-socket does it."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(str(self._path))
