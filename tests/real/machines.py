"""Machines for stories: network namespaces with switches and cables between them, a real daemon in each, and the person who sits there."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

P2PSYNC = [sys.executable, "-c", "import sys; from p2psync.cli.main import main; sys.exit(main())"]
READY = sys.platform == "linux" and os.geteuid() == 0 and shutil.which("ip") is not None
"""Whether namespaces can be made here."""

_PREFIX = f"p2pstory-{os.getpid()}-"
_EVERY_S = 0.02


def ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
    return done.stdout


def until(what: str, holds: Callable[[], Any], limit_s: float = 15.0, explain: Callable[[], str] = lambda: "") -> Any:
    """What ``holds`` returns, as soon as it is something; fails, in words, after ``limit_s``."""
    deadline = time.monotonic() + limit_s
    while not (found := holds()):
        if time.monotonic() > deadline:
            raise AssertionError(f"after {limit_s:g} s it is still not so that {what}\n{explain()}")
        time.sleep(_EVERY_S)
    return found


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


class Machine:
    """One person's machine: its daemon, its files below ``place``, and its command line."""

    def __init__(self, namespace: str, person: str, place: Path, *options: str) -> None:
        self.namespace, self.person, self.place = namespace, person, place
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None
        place.mkdir(parents=True)

    # ---- the daemon

    def start(self) -> None:
        """Start the daemon; ``answers`` tells when it is there."""
        command = ["ip", "netns", "exec", self.namespace, *P2PSYNC, "run", *self.options]
        with (self.place / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment())

    def answers(self) -> None:
        def holds() -> bool:
            assert self.process is not None and self.process.poll() is None, f"{self.person}'s daemon has ended\n{self.told()}"
            with contextlib.suppress(OSError, http.client.HTTPException):
                return bool(self.get("/v1/status"))
            return False

        self.until("the daemon answers", holds)

    def kill(self) -> None:
        """As a power cut does to a process: no goodbye, nothing tidied up."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Ask the daemon to end; its exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(15)

    def remove(self) -> None:
        """The end of the story, however it went."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def _environment(self) -> dict[str, str]:
        own = {
            "PYTHONPATH": os.pathsep.join(sys.path),
            "P2PSYNC_HOME": str(self.place / "state"),
            "P2PSYNC_SOCKET": str(self.place / "socket"),
            "P2PSYNC_FOLDERS": str(self.place),
            "LC_ALL": "C.UTF-8",
        }
        return os.environ | own

    def log(self) -> str:
        return (self.place / "log").read_text(errors="replace")

    def told(self) -> str:
        """For a failure: what the daemon says of itself, and the end of its log."""
        said = ""
        with contextlib.suppress(OSError, http.client.HTTPException):
            said = json.dumps(self.get("/v1/status"), indent=1, ensure_ascii=False)
        return f"---- {self.person}\n{said}\n{self.log()[-3000:]}"

    # ---- the person

    def p2psync(self, *words: str | Path, code: int = 0) -> str:
        """What the command line says to these words; it has to end with ``code``."""
        command = [*P2PSYNC, *map(str, words)]
        done = subprocess.run(command, env=self._environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        assert done.returncode == code, (
            f"{self.person}$ p2psync {' '.join(map(str, words))} ended with {done.returncode}:\n{said}\n{self.told()}"
        )
        assert "Traceback" not in said
        return said

    def until(self, what: str, holds: Callable[[], Any], limit_s: float = 15.0) -> Any:
        return until(f"{self.person}: {what}", holds, limit_s, self.told)

    def holds(self, path: Path, data: bytes, limit_s: float = 15.0) -> None:
        """Wait until exactly this stands at ``path``."""
        self.until(f"{path.name} is the expected version", lambda: path.is_file() and path.read_bytes() == data, limit_s)

    def has_no(self, path: Path) -> None:
        self.until(f"{path.name} is gone", lambda: not path.exists())

    def has_below(self, folder: Path, files: dict[str, bytes]) -> None:
        self.until(f"{folder.name} holds the expected {len(files)} files", lambda: files_below(folder) == files)

    def shows(self, name: str, state: str | None, limit_s: float = 15.0) -> None:
        """Wait until the status says this of an attachment; None: that it is not attached."""
        self.until(f"{name} is {state or 'not attached'}", lambda: self.attachment(name).get("state") == state, limit_s)

    def fetches(self, size: int) -> None:
        """Wait until so many bytes of files have come from now on."""
        before = self.content_bytes("in")
        self.until(f"{size} bytes have come", lambda: self.content_bytes("in") >= before + size, 30)

    # ---- the status socket

    def get(self, path: str) -> Any:
        connection = _OverUnix(self.place / "socket")
        try:
            connection.request("GET", path)
            answer = connection.getresponse().read()
            return answer.decode() if path == "/metrics" else json.loads(answer)
        finally:
            connection.close()

    def mandate(self) -> dict[str, Any]:
        """The status of the one mandate here."""
        (found,) = self.get("/v1/status")["mandates"]
        return dict(found)

    def attachment(self, name: str) -> dict[str, Any]:
        return next((dict(a) for a in self.mandate()["attachments"] if a["name"] == name), {})

    def participant(self, name: str) -> dict[str, Any]:
        return next((dict(p) for p in self.mandate()["participants"] if p["name"] == name), {})

    def sees(self, name: str) -> bool:
        return bool(self.participant(name).get("online"))

    def content_bytes(self, direction: str) -> int:
        """Bytes of files that went over the network since the daemon started."""
        found = re.findall(rf'p2psync_content_bytes_total\{{.*direction="{direction}"\}} (\d+)', self.get("/metrics"))
        return sum(map(int, found))


class _OverUnix(http.client.HTTPConnection):
    """HTTP over a Unix socket, as curl --unix-socket speaks it."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(str(self._path))


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
