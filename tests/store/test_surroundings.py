"""What this machine is like: disks, permissions, watches."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from p2psync.store import surroundings


def test_each_disk_is_told_of_once_and_one_that_is_gone_by_name(tmp_path: Path) -> None:
    (tmp_path / "books").mkdir()
    found = surroundings.of_disks([tmp_path, tmp_path / "books", tmp_path / "gone"])
    assert [one["code"] for one in found if one["code"] != "disk-shared"] in (["disk", "disk-gone"], ["disk-low", "disk-gone"])
    assert "no such file" in found[-1]["sentence"] and found[-1]["action"]


def test_a_disk_without_room_and_one_that_others_work_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=10, f_frsize=1_000_000, f_blocks=1000))
    monkeypatch.setattr(surroundings, "file_system", lambda _: "nfs4")
    low, shared = surroundings.of_disks([tmp_path])
    assert (low["code"], shared["code"]) == ("disk-low", "disk-shared")
    assert "Only 10.0 MB of 1.0 GB" in low["sentence"] and not low["ok"] and shared["ok"]


@pytest.mark.skipif(not Path("/proc/self/mountinfo").exists(), reason="no proc file system")
def test_the_kind_of_a_file_system_is_that_of_the_nearest_mount() -> None:
    assert surroundings.file_system(Path("/proc/self")) == "proc"
    assert surroundings.file_system(Path("/")) != "unknown"


@pytest.mark.parametrize(("mode", "code"), [(0o700, "home"), (0o750, "home-open"), (0o755, "home-open")])
def test_the_state_directory_is_for_its_user_alone(tmp_path: Path, mode: int, code: str) -> None:
    tmp_path.chmod(mode)
    assert surroundings.of_home(tmp_path)["code"] == code
    assert surroundings.of_home(tmp_path / "none")["code"] == "no-home"


def test_watches_are_counted_against_the_limit() -> None:
    assert surroundings.of_watches(surroundings.watches())["code"] == "watched"
    short = surroundings.of_watches(10**9)
    assert short["code"] == "watches-short" and short["commands"][0].startswith("sudo sysctl fs.inotify.max_user_watches=")
