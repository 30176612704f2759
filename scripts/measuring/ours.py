"""p2psync, driven through its command line, observed through its status socket."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from measuring.lan import INTERFACE, Desk
from measuring.peer import FIRST, GaveUp, OverUnix, Peer, until


class P2psync(Peer):
    """p2psync as it is installed."""

    name = "p2psync"
    settings = "as installed; --interface and --listen name the bench's network"
    works = frozenset({"W1", "W2", "W3", "W3c", "W4", "W5", "W6", "W7", "W8", "W9", "W10", "W11", "ask"})
    mandate = "Bench"

    @classmethod
    def version(cls) -> str:
        return subprocess.run([cls.program, "--version"], capture_output=True, text=True, check=True).stdout.strip()

    def command(self, desk: Desk) -> list[str]:
        # A port of its own at every start, so that a remembered address leads nowhere and only mDNS does.
        return desk.command(self.program, "run", "--interface", INTERFACE, "--listen", f"{desk.address}:0")

    def environment(self, desk: Desk) -> Mapping[str, str]:
        place = self.place(desk)
        return {"P2PSYNC_HOME": str(place / "state"), "P2PSYNC_SOCKET": str(place / "socket"), "P2PSYNC_FOLDERS": str(place)}

    def open(self) -> list[Path]:
        for desk in self.desks:
            self.start(desk)
        until(lambda: all(self.status(desk) for desk in self.desks), 20, "all daemons answer", 0.02)
        first, *others = self.desks
        folders = [self.folder(first)]
        folders[0].mkdir()
        (folders[0] / FIRST).write_text("The folder that is measured.\n", encoding="utf-8")
        for words in (["create", self.mandate], ["attach", self.mandate, str(folders[0])], ["share", self.mandate]):
            self.cli(first, *words)
        for desk in others:
            folders.append(self._subscribe(first, desk))
        self.settle()
        return folders

    def add_mandate(self, name: str) -> None:
        """One more mandate of all desks, with one file."""
        first, *others = self.desks
        book = self.place(first) / f"{name}.txt"
        book.write_text(f"{name}\n", encoding="utf-8")
        self.cli(first, "create", name, str(book))
        self.cli(first, "share", name)
        for desk in others:
            self._admit(first, desk, name)

    def _admit(self, host: Desk, desk: Desk, mandate: str) -> None:
        ticket, name = self.home / f"{mandate} {desk.name}.crsync", f"Bruno {desk.name}"
        self.cli(host, "invite", mandate, "--for", name, "-o", str(ticket))
        self.cli(desk, "subscribe", str(ticket), "--as", name)

    def _subscribe(self, host: Desk, desk: Desk) -> Path:
        self._admit(host, desk, self.mandate)
        until(lambda: bool(self._locations(desk)), 30, "the other side gets the folder", 0.05)
        folder = Path(self._locations(desk)[0])
        until((folder / FIRST).exists, 30, "the other side gets the first file", 0.05)
        return folder

    def settle(self) -> None:
        for desk in self.desks:
            self.cli(desk, "wait", self.mandate, "--timeout", "300")

    def connected(self, desk: Desk) -> bool:
        online = [who["online"] for mandate in self._mandates(desk) for who in mandate["participants"] if not who["self"]]
        return bool(online) and all(online)

    def up_to_date(self, desk: Desk) -> bool:
        mandates = self._mandates(desk)
        attached = [attached["state"] == "synced" for mandate in mandates for attached in mandate["attachments"]]
        others = [who["in_sync"] for mandate in mandates for who in mandate["participants"] if not who["self"]]
        return bool(attached) and all(attached) and bool(others) and all(others)

    def ask(self, desk: Desk) -> bool:
        return bool(self.status(desk))

    def status(self, desk: Desk) -> dict[str, Any]:
        """What `GET /v1/status` says; empty when nobody answers."""
        connection = OverUnix(self.place(desk) / "socket")
        try:
            connection.request("GET", "/v1/status")
            return dict(json.loads(connection.getresponse().read()))
        except (OSError, http.client.HTTPException):
            return {}
        finally:
            connection.close()

    def _locations(self, desk: Desk) -> list[str]:
        return [attached["location"] for mandate in self._mandates(desk) for attached in mandate["attachments"] if attached["location"]]

    def _mandates(self, desk: Desk) -> list[dict[str, Any]]:
        return list(self.status(desk).get("mandates", []))

    def cli(self, desk: Desk, *words: str) -> str:
        """Run one command there; what it prints. Raises: GaveUp."""
        done = subprocess.run(
            [self.program, *words],
            cwd=self.place(desk),
            env=os.environ | self.environment(desk),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode not in (0, 4):
            raise GaveUp(f"p2psync {' '.join(words)} said ({done.returncode}): {(done.stderr or done.stdout).strip()}")
        return done.stdout
