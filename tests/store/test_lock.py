"""One daemon per home, also after a crash."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from p2psync.store.faults import CannotWrite
from p2psync.store.lock import AlreadyRunning, HomeLock

pytestmark = pytest.mark.usefixtures("no_leaked_descriptors")


def test_the_second_one_is_told_who_is_first(tmp_path: Path) -> None:
    with HomeLock(tmp_path), pytest.raises(AlreadyRunning, match=f"process {os.getpid()}"):
        HomeLock(tmp_path)
    HomeLock(tmp_path).release()


def test_two_homes_do_not_disturb_each_other(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    with HomeLock(tmp_path), HomeLock(tmp_path / "b"):
        pass


def test_a_process_that_died_holds_nothing(tmp_path: Path, forked: Callable[..., Any]) -> None:
    def take_and_die() -> None:
        HomeLock(tmp_path)
        os.kill(os.getpid(), 9)

    with pytest.raises(ChildProcessError, match="SIGKILL"):
        forked(take_and_die)
    HomeLock(tmp_path).release()


def test_nonsense_in_the_file_is_not_repeated(tmp_path: Path) -> None:
    with HomeLock(tmp_path) as lock:
        lock.path.write_bytes(b"\x1b[31m")
        with pytest.raises(AlreadyRunning, match="process unknown"):
            HomeLock(tmp_path)


def test_a_home_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match="none"):
        HomeLock(tmp_path / "none")
