"""Syncthing, with everything switched off that talks to more than the local network."""

from __future__ import annotations

import http.client
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from measuring.lan import Desk
from measuring.peer import OverUnix, Peer, until

KEY = "bench"
CONFIG = """<configuration version="36">
  <folder id="bench" label="bench" path="{folder}" type="sendreceive" {watching}>{members}</folder>
  {devices}
  <gui enabled="true" tls="false"><address>{socket}</address><apikey>{key}</apikey></gui>
  <options>
    <listenAddress>tcp://0.0.0.0:22000</listenAddress>
    <globalAnnounceEnabled>false</globalAnnounceEnabled><localAnnounceEnabled>true</localAnnounceEnabled>
    <relaysEnabled>false</relaysEnabled><natEnabled>false</natEnabled><stunServer></stunServer>
    <urAccepted>-1</urAccepted><crashReportingEnabled>false</crashReportingEnabled><autoUpgradeIntervalH>0</autoUpgradeIntervalH>
    <startBrowser>false</startBrowser>{options}
  </options>
</configuration>
"""


class Syncthing(Peer):
    """Syncthing as it is installed (its watcher waits ten seconds)."""

    name = "syncthing"
    program = "syncthing"
    settings = "stock, local discovery only, TCP only, without its supervisor process"
    watching = ""
    options = ""
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
        folders = [self.place(desk) / "books" for desk in self.desks]
        for folder in folders:
            (folder / ".stfolder").mkdir(parents=True)
        # Before the first scan: what is saved between that and the beginning of the watch would be seen an hour later.
        (folders[0] / "README.txt").write_text("The folder that is measured.\n", encoding="utf-8")
        for desk, folder in zip(self.desks, folders, strict=True):
            text = CONFIG.format(
                folder=folder,
                watching=self.watching,
                members="".join(f'<device id="{known}"/>' for known in ids),
                devices="".join(f'<device id="{known}" name="{known[:5]}"><address>dynamic</address></device>' for known in ids),
                socket=self.place(desk) / "socket",
                key=KEY,
                options=self.options,
            )
            (self.place(desk) / "state" / "config.xml").write_text(text, encoding="utf-8")
            self.start(desk)
        until(lambda: all(self.connected(desk) for desk in self.desks), 90, "syncthing is connected", 0.05)
        until(lambda: all((folder / "README.txt").exists() for folder in folders), 60, "syncthing brings the first file", 0.05)
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
    watching = 'fsWatcherEnabled="true" fsWatcherDelayS="1"'
    options = "<setLowPriority>false</setLowPriority>"
