"""What is said of machines, mandates, participants and tickets: no code without a sentence, none that nothing can say."""

from __future__ import annotations

import ast
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

import p2psync
from p2psync.engine.concerns import CONCERNS, told


def _said() -> Iterator[tuple[str, str, set[str]]]:
    """Each call of ``told`` in the package: where, with which code, with which facts."""
    package = Path(p2psync.__file__).parent
    for file in sorted(package.rglob("*.py")):
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "told":
                code = call.args[0]
                branches = [code.body, code.orelse] if isinstance(code, ast.IfExp) else [code]
                facts = {keyword.arg for keyword in call.keywords if keyword.arg}
                for one in branches:
                    text = one.value if isinstance(one, ast.Constant) else "?"  # a code that is not written there cannot be checked
                    yield f"{file.relative_to(package)}:{call.lineno}", str(text), facts


SAID = list(_said())


def _fields(code: str) -> set[str]:
    concern = CONCERNS[code]
    texts = (concern.sentence, concern.action, *concern.commands)
    return {name for text in texts for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize(("where", "code", "facts"), SAID, ids=lambda one: str(one) if isinstance(one, str) else "")
def test_what_is_told_has_a_sentence_whose_facts_are_given(where: str, code: str, facts: set[str]) -> None:
    assert not _fields(code) - facts, where


@pytest.mark.parametrize("code", CONCERNS)
def test_every_sentence_can_be_said(code: str) -> None:
    assert code in {said for _, said, _ in SAID}


@pytest.mark.parametrize("code", CONCERNS)
def test_every_sentence_reads_as_one_and_says_what_to_do(code: str) -> None:
    concern = CONCERNS[code]
    for text in (concern.sentence, concern.action):
        assert text == text.strip() and '"' not in text and text[0] in "“{ABCDEFGHIJKLMNOPQRSTUVWXYZp" and text[-1] in ".:"
    assert concern.action.endswith(":") == bool(concern.commands), "an action that ends with a colon is followed by commands"
    assert all(command.startswith("p2psync ") for command in concern.commands)


def test_a_concern_is_told_with_machine_and_commands() -> None:
    why = told("ticket-contested", machine="Bruno (salon), Clara (cave)", mandate="Dupont SA", count=2)
    assert why["reason"].startswith("A ticket of “Dupont SA” was used on 2 machines")
    assert why["machine"] == "Bruno (salon), Clara (cave)" and why["since"] is None
    assert why["commands"][0] == "p2psync participants 'Dupont SA'"
