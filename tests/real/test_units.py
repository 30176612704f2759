"""The systemd units are ones that systemd understands, and the system service is confined as it says."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
SYSTEMD = README.parent / "systemd"
ANALYZE = shutil.which("systemd-analyze")

pytestmark = [pytest.mark.real, pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not on this machine")]


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(ANALYZE), *arguments], capture_output=True, text=True, timeout=60, check=False)


def copy_that_could_start(unit: Path, into: Path) -> Path:
    """The unit with a program that exists on any machine in place of the one that is to be installed."""
    copy = into / unit.name
    copy.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", unit.read_text(encoding="utf-8"), flags=re.M), encoding="utf-8")
    return copy


@pytest.mark.parametrize(("unit", "manager"), [("p2psync.service", "--system"), ("p2psync-user.service", "--user")])
def test_systemd_has_no_complaint(unit: str, manager: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    answer = analyze(manager, "verify", "--man=no", str(copy_that_could_start(SYSTEMD / unit, tmp_path)))
    complaints = [line for line in (answer.stdout + answer.stderr).splitlines() if "p2psync" in line]
    assert complaints == []


def test_user_and_folder_are_made_as_the_service_needs_them(tmp_path: Path) -> None:
    if os.geteuid() != 0 or not all(map(shutil.which, ("systemd-sysusers", "systemd-tmpfiles"))):
        pytest.skip("needs root, systemd-sysusers and systemd-tmpfiles")
    (tmp_path / "etc").mkdir()
    for command in (["systemd-sysusers"], ["systemd-tmpfiles", "--create"]):
        snippet = SYSTEMD / f"{command[0].removeprefix('systemd-')}.d" / "p2psync.conf"
        subprocess.run([*command, f"--root={tmp_path}", str(snippet)], check=True, capture_output=True, timeout=60)
    name, _, uid, gid, _, home, shell = (tmp_path / "etc" / "passwd").read_text().strip().split(":")
    assert (name, home, shell) == ("p2psync", "/var/lib/p2psync", "/usr/sbin/nologin")
    folder = tmp_path / "srv" / "p2psync"
    found = folder.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (int(uid), int(gid), 0o2770)
    saved = folder / "saved.txt"
    before = os.umask(0o077)
    try:
        saved.write_text("by somebody with a narrow umask")
    finally:
        os.umask(before)
    if "system.posix_acl_default" in os.listxattr(folder):  # a disk may have no lists
        assert stat.S_IMODE(saved.stat().st_mode) == 0o660
    assert saved.stat().st_gid == int(gid)


def test_what_the_readme_installs_is_what_the_units_start() -> None:
    readme = README.read_text(encoding="utf-8")
    named = re.findall(r"install -Dm644 (systemd/\S+)", readme)
    assert sorted(named) == sorted(str(path.relative_to(README.parent)) for path in SYSTEMD.rglob("*") if path.is_file())
    for unit, made in (("p2psync.service", "/opt/p2psync"), ("p2psync-user.service", "~/.local/lib/p2psync")):
        start = re.search(r"^ExecStart=(\S+)", (SYSTEMD / unit).read_text(encoding="utf-8"), re.MULTILINE)
        assert start is not None
        assert start[1].replace("%h", "~") == f"{made}/bin/p2psync"
        assert f"python3 -m venv {made}" in readme


def test_the_service_is_well_confined() -> None:
    answer = analyze("security", "--offline=yes", str(SYSTEMD / "p2psync.service"))
    if "Overall exposure level" not in answer.stdout:
        pytest.skip("this systemd-analyze cannot judge a unit that is not loaded")
    found = re.search(r"Overall exposure level for p2psync.service: ([\d.]+)", answer.stdout)
    assert found is not None
    assert float(found[1]) <= 1.5
