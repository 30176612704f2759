"""rsync to its daemon: one way, run by hand after each change, not encrypted, not synced to the disk: the floor, not a rival."""

from __future__ import annotations

import subprocess
from pathlib import Path

from measuring.lan import Desk
from measuring.peer import Peer, until

DAEMON = """use chroot = no
uid = 0
gid = 0
address = {address}
[books]
path = {folder}
read only = no
"""
LOOP = 'while read -r go; do rsync -a --modify-window=-1 "$1" "$2"; echo done; done'
"""A shell that waits for a word and then runs rsync once: so all that the client uses is counted below one process.
Without the window it compares times by the second, and takes two saves of one size within a second for one."""


class Rsync(Peer):
    """rsync -a, started by the bench at the moment of the change."""

    name = "rsync"
    program = "rsync"
    settings = "rsync -a --modify-window=-1 to rsync --daemon, started by hand at the moment of the change"
    works = frozenset({"W1", "W2", "W3", "W4", "W5", "W8"})

    @classmethod
    def version(cls) -> str:
        return subprocess.run([cls.program, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]

    def command(self, desk: Desk) -> list[str]:
        if desk is self.desks[1]:
            return desk.command(self.program, "--daemon", "--no-detach", f"--config={self.place(desk) / 'rsyncd.conf'}")
        return desk.command("sh", "-c", LOOP, "sh", f"{self.folder(desk)}/", f"rsync://{self.desks[1].address}/books/")

    def open(self) -> list[Path]:
        first, second = self.desks
        folders = self.make_folders()
        text = DAEMON.format(address=second.address, folder=folders[1])
        (self.place(second) / "rsyncd.conf").write_text(text, encoding="utf-8")
        self.under_way = 0
        self.start(second)
        self.start(first)
        self._wait_for_daemon()
        self.notice()
        self.settle()
        return folders

    def notice(self) -> None:
        client = self.running[self.desks[0].name]
        assert client.stdin is not None
        client.stdin.write("go\n")
        client.stdin.flush()
        self.under_way += 1

    def settle(self) -> None:
        client = self.running[self.desks[0].name]
        assert client.stdout is not None
        while self.under_way:
            client.stdout.readline()
            self.under_way -= 1

    def start(self, desk: Desk) -> None:
        super().start(desk)
        if self.under_way:  # after a kill of the daemon: its client has failed, and is run again
            self._wait_for_daemon()
            self.settle()
            self.notice()

    def talks(self, desk: Desk) -> bool:
        return desk is self.desks[0]

    def _wait_for_daemon(self) -> None:
        until(lambda: self.listens(self.desks[1], 873), 10, "rsync listens", 0.02)
