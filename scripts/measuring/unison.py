"""Unison: a server on the second desk, and on the first a client that looks every second (it polls; it does not watch)."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from measuring.lan import Desk
from measuring.peer import FIRST, Peer, until

PORT = "7777"


class Unison(Peer):
    """unison -repeat 1 over its own socket: neither encrypted nor authenticated."""

    name = "unison"
    program = "unison"
    settings = "-repeat 1 -batch -auto over -socket, plain TCP"
    works = frozenset({"W1", "W2", "W3", "W4", "W5", "W6", "W8"})

    @classmethod
    def version(cls) -> str:
        return subprocess.run([cls.program, "-version"], capture_output=True, text=True, check=True).stdout.strip()

    def command(self, desk: Desk) -> list[str]:
        if desk is self.desks[1]:
            return desk.command(self.program, "-socket", PORT, "-listen", desk.address)
        server = f"socket://{self.desks[1].address}:{PORT}/{self.folder(self.desks[1])}"
        quiet = ("-ui", "text", "-batch", "-auto", "-log=false", "-confirmbigdel=false", "-silent")
        return desk.command(self.program, str(self.folder(desk)), server, "-repeat", "1", *quiet)

    def environment(self, desk: Desk) -> Mapping[str, str]:
        return {"HOME": str(self.place(desk)), "UNISON": str(self.place(desk) / "state")}

    def open(self) -> list[Path]:
        first, second = self.desks
        folders = self.make_folders()
        self.start(second)
        self._wait_for_server()
        self.start(first)
        until((folders[1] / FIRST).exists, 30, "unison brings the first file", 0.02)
        return folders

    def settle(self) -> None:
        """Nothing tells from outside that it is idle; what a work waits for is on the other side when it has been renamed there."""

    def start(self, desk: Desk) -> None:
        super().start(desk)
        first, second = self.desks
        if desk is second and first.name in self.running:  # the client ends when its server does
            self._wait_for_server()
            self.kill(first)
            self.start(first)

    def rest(self) -> None:
        for process in self.running.values():
            process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        for process in self.running.values():
            process.send_signal(signal.SIGCONT)

    def _wait_for_server(self) -> None:
        until(lambda: self.listens(self.desks[1], PORT), 10, "unison listens", 0.02)
