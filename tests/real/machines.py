"""Machines for stories: desks in network namespaces, with switches and cables between them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.story.desks import Desk

READY = sys.platform == "linux" and os.geteuid() == 0 and shutil.which("ip") is not None
"""Whether namespaces can be made here."""

_PREFIX = f"p2pstory-{os.getpid()}-"


def ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
    return done.stdout


class Network:
    """Switches, and cables from machines to them."""

    def __init__(self) -> None:
        self._made: list[str] = []

    def namespace(self, name: str) -> str:
        full = _PREFIX + name
        ip("netns", "add", full)
        self._made.append(full)
        ip("-n", full, "link", "set", "lo", "up")
        return full

    def switch(self, name: str) -> str:
        full = self.namespace(name)
        ip("-n", full, "link", "add", "bridge", "type", "bridge", "mcast_snooping", "0")
        ip("-n", full, "link", "set", "bridge", "up")
        return full

    def close(self) -> None:
        """Remove all of it, and whatever still runs in it."""
        for full in self._made:
            left = subprocess.run(["ip", "netns", "pids", full], check=False, capture_output=True, text=True).stdout.split()
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            subprocess.run(["ip", "netns", "delete", full], check=False, capture_output=True)
        self._made.clear()


class Cable:
    """Between ``interface`` of a machine and a switch."""

    def __init__(self, machine: str, interface: str, address: str, switch: str) -> None:
        self._machine, self._interface, self._switch = machine, interface, switch
        self._plug = f"{machine.removeprefix(_PREFIX)}-{interface}"
        ip("link", "add", interface, "netns", machine, "type", "veth", "peer", "name", self._plug, "netns", switch)
        ip("-n", switch, "link", "set", self._plug, "master", "bridge", "up")
        ip("-n", machine, "address", "add", f"{address}/24", "dev", interface)
        ip("-n", machine, "link", "set", interface, "up")

    def cut(self) -> None:
        """Pull the plug out of the switch."""
        ip("-n", self._switch, "link", "set", self._plug, "down")

    def mend(self) -> None:
        ip("-n", self._switch, "link", "set", self._plug, "up")

    def received(self) -> int:
        """Bytes that the machine has received over this cable so far, everything counted."""
        return int(json.loads(ip("-n", self._machine, "-s", "-j", "link", "show", self._interface))[0]["stats64"]["rx"]["bytes"])


class Machine(Desk):
    """A desk in a namespace of its own, with one mandate."""

    def __init__(self, namespace: str, person: str, place: Path, *options: str) -> None:
        super().__init__(person, place, options)
        self.namespace = namespace
        self.within = ["ip", "netns", "exec", namespace]

    # ---- what is waited for

    def holds(self, path: Path, data: bytes, limit_s: float = 30.0) -> None:
        """Wait until exactly this stands at ``path``."""
        self.until(f"{path.name} is the expected version", lambda: path.is_file() and path.read_bytes() == data, limit_s)

    def has_no(self, path: Path) -> None:
        self.until(f"{path.name} is gone", lambda: not path.exists())

    def has_below(self, folder: Path, files: dict[str, bytes]) -> None:
        self.until(f"{folder.name} holds the expected {len(files)} files", lambda: files_below(folder) == files)

    def shows(self, name: str, state: str | None, limit_s: float = 30.0) -> None:
        """Wait until the status says this of an attachment; None: that it is not attached."""
        self.until(f"{name} is {state or 'not attached'}", lambda: self.attached(name).get("state") == state, limit_s)

    def fetches(self, size: int) -> None:
        """Wait until so many bytes of files have come from now on."""
        before = self.content_bytes("in")
        self.until(f"{size} bytes have come", lambda: self.content_bytes("in") >= before + size, 30)

    # ---- what can be seen of the mandate

    def books(self) -> dict[str, Any]:
        """The status of the one mandate here."""
        (found,) = self.status()["mandates"]
        return dict(found)

    def attached(self, name: str) -> dict[str, Any]:
        return next((dict(a) for a in self.books()["attachments"] if a["name"] == name), {})

    def participant(self, name: str) -> dict[str, Any]:
        return next((dict(p) for p in self.books()["participants"] if p["name"] == name), {})

    def sees(self, name: str) -> bool:
        return bool(self.participant(name).get("online"))


# ---- versions of files that can be told to be whole


def version(number: int, size: int = 20_000) -> bytes:
    """A version of a file that proves by itself that it is whole."""
    line = f"{number:06d};Miete;6000;1020;1800.00\n".encode()
    body = (line * (size // len(line) + 1))[:size]
    return hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def is_whole(data: bytes) -> bool:
    digest, _, body = data.partition(b"\n")
    return hashlib.sha256(body).hexdigest().encode() == digest


class Reader:
    """Reads paths over and over while files cross: what stands there is never torn and never absent."""

    def __init__(self, *paths: Path) -> None:
        self.reads = 0
        self.faults: list[str] = []
        self._paths = paths
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        assert not self.faults, f"{len(self.faults)} of {self.reads} reads found no whole version: {self.faults[:5]}"

    def _read(self) -> None:
        while not self._stop.wait(0.002):
            for path in self._paths:
                self.reads += 1
                try:
                    data = path.read_bytes()
                except OSError as e:
                    self.faults.append(f"{path.name}: {e.strerror}")
                    continue
                if not is_whole(data):
                    self.faults.append(f"{path.name}: {len(data)} bytes that nobody wrote")


def files_below(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its name; our own work in progress is not one."""
    found: dict[str, bytes] = {}
    for path in sorted(folder.rglob("*")):
        if not path.name.startswith(".p2psync") and path.is_file():
            with contextlib.suppress(FileNotFoundError):  # renamed while we read
                found[str(path.relative_to(folder))] = path.read_bytes()
    return found


@contextlib.contextmanager
def opened_by_a_program(path: Path) -> Iterator[int]:
    """A program of its own has the file open meanwhile; its process id."""
    reader = "import sys; f = open(sys.argv[1]); print(1, flush=True); sys.stdin.read()"
    process = subprocess.Popen([sys.executable, "-c", reader, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin and process.stdout
    try:
        process.stdout.readline()
        yield process.pid
    finally:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()
