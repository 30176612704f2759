"""What the doctor may find: no code without a sentence whose facts are given, none that nothing can find."""

from __future__ import annotations

import ast
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

import p2psync
from p2psync.engine.findings import FINDINGS, finding, is_low, is_shared


def _found() -> Iterator[tuple[str, str, set[str] | None]]:
    """Each call of ``finding`` in the package: where, with which code, with which facts (None: more than are written there)."""
    package = Path(p2psync.__file__).parent
    for file in sorted(package.rglob("*.py")):
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "finding":
                code = call.args[0]
                branches = [code.body, code.orelse] if isinstance(code, ast.IfExp) else [code]
                names = {keyword.arg for keyword in call.keywords}
                facts = None if None in names else {name for name in names if name}
                for one in branches:
                    text = one.value if isinstance(one, ast.Constant) else "?"
                    yield f"{file.relative_to(package)}:{call.lineno}", str(text), facts


FOUND = list(_found())


@pytest.mark.parametrize(("where", "code", "facts"), FOUND)
def test_what_is_found_has_a_sentence_whose_facts_are_given(where: str, code: str, facts: set[str] | None) -> None:
    kind = FINDINGS[code]
    texts = (kind.sentence, kind.action, *kind.commands)
    wanted = {name for text in texts for _, name, _, _ in string.Formatter().parse(text) if name}
    assert facts is None or not wanted - facts, where


@pytest.mark.parametrize("code", FINDINGS)
def test_every_code_can_be_found_and_says_what_to_do_where_one_has_to_look(code: str) -> None:
    kind = FINDINGS[code]
    assert code in {said for _, said, _ in FOUND}
    assert kind.sentence[-1] in ".}" and (kind.ok or kind.action)
    assert kind.action.endswith(":") == bool(kind.commands)


def test_a_finding_is_fit_to_be_shown() -> None:
    said = finding("home-open", path="/home/anna/p 2p")
    assert not said["ok"] and said["about"] == "home" and said["commands"] == ["chmod 700 '/home/anna/p 2p'"]
    assert finding("clock-alone")["action"] is None


@pytest.mark.parametrize(("system", "shared"), [("nfs4", True), ("fuse.sshfs", True), ("CIFS", True), ("ext4", False), ("fat", False)])
def test_disks_on_which_others_may_work_are_known(system: str, shared: bool) -> None:
    assert is_shared(system) == shared


def test_a_disk_is_short_of_room_below_a_twentieth_or_a_gigabyte() -> None:
    assert is_low(40_000_000, 1_000_000_000) and not is_low(60_000_000, 1_000_000_000)
    assert is_low(900_000_000, 10**13) and not is_low(1_100_000_000, 10**13)
