"""Real disks with real faults for the tests of the store: a small one, another user, another program that holds a file open."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

NOBODY = 65534

HOLD = """
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR if "w" in sys.argv[2] else os.O_RDONLY)
if "m" in sys.argv[2]:
    kept = mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
    os.close(fd)
print("open", flush=True)
for line in sys.stdin:
    os.pwrite(fd, line.strip().encode(), 0)
    print("written", flush=True)
"""

Holder = Callable[..., AbstractContextManager["subprocess.Popen[str]"]]


@pytest.fixture
def held_open() -> Holder:
    """Another program that has a file open: `with held_open(path):`, how being r, w or m (mapped, descriptor closed)."""

    @contextmanager
    def hold(path: Path, how: str = "r") -> Iterator[subprocess.Popen[str]]:
        command = [sys.executable, "-S", "-c", HOLD, str(path), how]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
            assert program.stdout is not None
            assert program.stdout.readline() == "open\n"
            try:
                yield program
            finally:
                program.kill()

    return hold


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting is not permitted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], capture_output=True, check=False)


def read_only(place: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)


@pytest.fixture
def forked() -> Callable[..., Any]:
    """Runs a function in a process of its own, as another user if one is named, and gives its result or raises its error."""

    def run(function: Callable[[], Any], uid: int | None = None) -> Any:
        if uid is not None and os.geteuid() != 0:
            pytest.skip("only root can become another user")
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            _child(function, uid, write)
        os.close(write)
        with open(read, "rb") as pipe:
            answer = pipe.read()
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status):
            raise ChildProcessError(signal.Signals(os.WTERMSIG(status)).name)
        good, value = pickle.loads(answer)
        if not good:
            raise AssertionError(value)
        return value

    return run


def _child(function: Callable[[], Any], uid: int | None, write: int) -> None:
    try:
        if uid is not None:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        answer = (True, function())
    except BaseException as error:
        answer = (False, f"{type(error).__name__}: {error}")
    os.write(write, pickle.dumps(answer))
    os._exit(0)


@pytest.fixture
def no_leaked_descriptors() -> Iterator[None]:
    """Fails a test that leaves a file open."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    left = {number: os.readlink(f"/proc/self/fd/{number}") for number in set(os.listdir("/proc/self/fd")) - before if _stands(number)}
    if left:
        pytest.fail(f"left open: {left}")


def _stands(number: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{number}")
