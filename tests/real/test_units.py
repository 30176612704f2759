"""The systemd units are ones that systemd understands, and the system service is confined as it says."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

SYSTEMD = Path(__file__).parents[2] / "systemd"
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


def test_the_service_is_well_confined() -> None:
    answer = analyze("security", "--offline=yes", str(SYSTEMD / "p2psync.service"))
    if "Overall exposure level" not in answer.stdout:
        pytest.skip("this systemd-analyze cannot judge a unit that is not loaded")
    found = re.search(r"Overall exposure level for p2psync.service: ([\d.]+)", answer.stdout)
    assert found is not None
    assert float(found[1]) <= 1.5
