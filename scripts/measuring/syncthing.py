"""Syncthing, with everything switched off that talks to more than the local network."""

from __future__ import annotations

import http.client
import json
import subprocess
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from measuring.lan import Desk
from measuring.peer import FIRST, OverUnix, Peer, until

KEY = "bench"
OPTIONS = {
    "listenAddress": "tcp://0.0.0.0:22000",
    "globalAnnounceEnabled": "false",
    "relaysEnabled": "false",
    "natEnabled": "false",
    "stunServer": "",
    "urAccepted": "-1",
    "crashReportingEnabled": "false",
    "autoUpgradeIntervalH": "0",
    "startBrowser": "false",
}
"""Nothing may leave the bench's network; all else is as Syncthing writes it into a new configuration."""


class Syncthing(Peer):
    """Syncthing as it is installed (its watcher waits ten seconds)."""

    name = "syncthing"
    program = "syncthing"
    settings = "stock, local discovery only, TCP only, without its supervisor process"
    watching: Mapping[str, str] = {}
    options: Mapping[str, str] = {}
    works = frozenset({"W1", "W2", "W3", "W3c", "W4", "W5", "W6", "W7", "W8", "W9", "W10"})

    @classmethod
    def version(cls) -> str:
        return subprocess.run([cls.program, "--version"], capture_output=True, text=True, check=True).stdout.split(" (")[0]

    def command(self, desk: Desk) -> list[str]:
        return desk.command(self.program, "serve", "--home", str(self.place(desk) / "state"), "--no-browser", "--no-upgrade")

    def environment(self, desk: Desk) -> Mapping[str, str]:
        return {"HOME": str(self.place(desk)), "STMONITORED": "yes", "STNOUPGRADE": "1"}

    def open(self) -> list[Path]:
        ids = [self._make_key(desk) for desk in self.desks]
        # The first file before the first scan: what is saved between that and the beginning of the watch would be seen an hour later.
        folders = self.make_folders()
        for folder in folders:
            (folder / ".stfolder").mkdir()
        for desk, folder in zip(self.desks, folders, strict=True):
            self._configure(desk, folder, ids)
            self.start(desk)
        until(lambda: all(self.connected(desk) for desk in self.desks), 90, "syncthing is connected", 0.05)
        until(lambda: all((folder / FIRST).exists() for folder in folders), 60, "syncthing brings the first file", 0.05)
        self.settle()
        return folders

    def connected(self, desk: Desk) -> bool:
        known = self._get(desk, "/rest/system/connections").get("connections", {})
        return sum(bool(link["connected"]) for link in known.values()) == len(self.desks) - 1

    def up_to_date(self, desk: Desk) -> bool:
        return self.connected(desk) and self._idle(desk)

    def settle(self) -> None:
        until(lambda: all(self._idle(desk) for desk in self.desks), 300, "syncthing is idle", 0.05)

    def _idle(self, desk: Desk) -> bool:
        folder = self._get(desk, "/rest/db/status?folder=bench")
        others = self._get(desk, "/rest/db/completion?folder=bench")
        return folder.get("state") == "idle" and folder["needTotalItems"] == 0 and others.get("completion") == 100

    def _make_key(self, desk: Desk) -> str:
        home = f"--home={self.place(desk) / 'state'}"
        subprocess.run([self.program, "generate", home, "--no-default-folder"], check=True, capture_output=True)
        return subprocess.run([self.program, home, "--device-id"], check=True, capture_output=True, text=True).stdout.strip()

    def _configure(self, desk: Desk, folder: Path, ids: list[str]) -> None:
        """Put a shared folder into the configuration that `generate` has written, made like the default that stands there."""
        path = self.place(desk) / "state" / "config.xml"
        tree = ElementTree.parse(path)
        config = tree.getroot()
        shared, known = (deepcopy(config.find(f"defaults/{kind}")) for kind in ("folder", "device"))
        assert shared is not None and known is not None
        shared.attrib |= {"id": "bench", "label": "bench", "path": str(folder), **self.watching}
        for parent in (shared, config):
            for own in parent.findall("device"):
                parent.remove(own)
        for each in ids:
            ElementTree.SubElement(shared, "device", id=each)
            config.append(deepcopy(known))
            config[-1].attrib |= {"id": each, "name": each[:5]}
        config.append(shared)
        for where, text in {
            "gui/address": str(self.place(desk) / "socket"),
            "gui/apikey": KEY,
            **{f"options/{name}": text for name, text in {**OPTIONS, **self.options}.items()},
        }.items():
            found = config.find(where)
            assert found is not None, where
            found.text = text
        tree.write(path)

    def _get(self, desk: Desk, path: str) -> dict[str, Any]:
        connection = OverUnix(self.place(desk) / "socket")
        try:
            connection.request("GET", path, headers={"X-API-Key": KEY})
            return dict(json.loads(connection.getresponse().read()))
        except (OSError, http.client.HTTPException, ValueError):
            return {}
        finally:
            connection.close()


class SyncthingTuned(Syncthing):
    """Syncthing with its watcher's delay at the least that it accepts, and at ordinary priority."""

    name = "syncthing-tuned"
    settings = "fsWatcherDelayS=1 (the least it accepts), setLowPriority=false; local discovery only, TCP only, without its supervisor"
    watching: Mapping[str, str] = {"fsWatcherDelayS": "1"}
    options: Mapping[str, str] = {"setLowPriority": "false"}
