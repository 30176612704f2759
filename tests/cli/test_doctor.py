"""``p2psync doctor``, with a daemon and without one."""

from __future__ import annotations

import json

import pytest


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def line(code: str, ok: bool, action: str | None = None, *commands: str) -> dict[str, object]:
    return {"about": "port", "code": code, "ok": ok, "sentence": f"This is {code}.", "action": action, "commands": list(commands)}


def test_all_is_well(daemon, p2psync) -> None:
    daemon.answers["/v1/doctor"] = {"ok": True, "findings": [line("port", True, "Not said.")]}
    said = p2psync("doctor")
    assert said.code == 0 and said.out == "ok         This is port.\n"


def test_where_to_look_comes_with_what_to_do(daemon, p2psync) -> None:
    daemon.answers["/v1/doctor"] = {"ok": False, "findings": [line("never-reached", False, "Allow it:", "sudo ufw allow 1/tcp")]}
    said = p2psync("doctor")
    assert said.code == 4
    assert said.out == "look here  This is never-reached.\n           → Allow it: sudo ufw allow 1/tcp\n"
    assert json.loads(p2psync("doctor", "--json").out)["findings"][0]["code"] == "never-reached"


def test_without_a_daemon_it_says_so_and_looks_at_what_can_be_seen(daemon, p2psync, tmp_path) -> None:
    daemon.stop()
    home = tmp_path / "state"
    home.mkdir(mode=0o755)
    home.chmod(0o755)
    said = p2psync("doctor", "--home", home)
    assert said.code == 4
    assert said.out.startswith("look here  No p2psync daemon answers at")
    assert "p2psync run" in said.out and f"chmod 700 {home}" in said.out
    assert " are free on the disk of " in " ".join(said.out.split())
    codes = [one["code"] for one in json.loads(p2psync("doctor", "--home", home / "none", "--json").out)["findings"]]
    assert codes[0] == "no-daemon" and codes[-1] == "no-home"
