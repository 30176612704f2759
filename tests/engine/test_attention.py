"""Every state short of “up to date” says what is wrong and what to do: no code without a sentence, no sentence without its facts."""

from __future__ import annotations

import ast
import string
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import p2psync
from p2psync.engine.attention import ORDER, REASONS, Attention

SHOWN = {"path", "mandate", "location"}
"""What the status adds to every sentence."""
GRAVE = ("halted", "conflict", "missing", "error")


class Raised(NamedTuple):
    """One place in the package that says why a path is not up to date."""

    where: str
    code: str
    facts: frozenset[str]
    open: bool  # takes further facts from a variable


def _fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def _codes(node: ast.expr) -> list[str]:
    """The codes that an expression may be: a text, or one of two."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    return [*_codes(node.body), *_codes(node.orelse)] if isinstance(node, ast.IfExp) else []


def _facts(call: ast.Call, named: dict[str, ast.expr]) -> tuple[set[str], bool]:
    """The facts that a call gives, and whether it may give more."""
    facts = {keyword.arg for keyword in call.keywords if keyword.arg}
    rest = [keyword.value for keyword in call.keywords if not keyword.arg] + call.args[1:]
    known = [named.get(arg.id, arg) if isinstance(arg, ast.Name) else arg for arg in rest]
    keys = [key for arg in known if isinstance(arg, ast.Dict) for key in arg.keys]
    facts |= {key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}
    if any(isinstance(arg, ast.Call) and getattr(arg.func, "id", "") == "why_and_do" for arg in rest):  # an error's message in two parts
        facts |= {"why", "do"}
    return facts, None in keys or any(isinstance(arg, ast.Name | ast.Attribute) and ast.unparse(arg).endswith("facts") for arg in known)


def _raised_in(function: ast.FunctionDef | ast.AsyncFunctionDef, file: str) -> Iterator[Raised]:
    assigned = [node for node in ast.walk(function) if isinstance(node, ast.Assign)]
    named = {target.id: node.value for node in assigned for target in node.targets if isinstance(target, ast.Name)}
    typed = [node for node in ast.walk(function) if isinstance(node, ast.AnnAssign) and node.value is not None]
    named |= {node.target.id: node.value for node in typed if isinstance(node.target, ast.Name) and node.value is not None}
    for call in ast.walk(function):
        if not isinstance(call, ast.Call) or not call.args:
            continue
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        if name in ("Attention", "_attention"):
            code = call.args[0]
            facts, more = _facts(call, named)
            codes = _codes(named.get(code.id, code) if isinstance(code, ast.Name) else code)
            for one in codes or ["?"]:  # a code that is not written there is one that nobody can check
                yield Raised(f"{file}:{call.lineno}", one, frozenset(facts), more)


def raised() -> Iterator[Raised]:
    package = Path(p2psync.__file__).parent
    for file in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name != "_attention":
                yield from _raised_in(node, str(file.relative_to(package)))


PLACES = list(raised())


def test_the_places_that_say_so_are_found() -> None:
    assert len(PLACES) > 15


@pytest.mark.parametrize("place", PLACES, ids=lambda place: f"{place.code} {place.where}")
def test_every_code_that_is_used_has_a_sentence_whose_facts_are_given(place: Raised) -> None:
    reason = REASONS[place.code]
    wanted = _fields(reason.sentence) | _fields(reason.action) | {f for c in reason.commands for f in _fields(c)}
    missing = wanted - place.facts - SHOWN
    assert not missing or place.open, f"{place.where} says nothing of {missing}"


@pytest.mark.parametrize("code", REASONS)
def test_every_sentence_is_used(code: str) -> None:
    assert code in {place.code for place in PLACES}


@pytest.mark.parametrize("code", REASONS)
def test_every_sentence_reads_as_one(code: str) -> None:
    reason = REASONS[code]
    assert reason.state in ORDER and reason.state != "synced"
    for text in filter(None, (reason.sentence, reason.action)):
        assert text == text.strip() and ('"' not in text) and text[0] in "“{ABCDEFGHIJKLMNOPQRSTUVWXYZ"
        assert text[-1] in ".:}", text
    assert reason.action.endswith(":") == bool(reason.commands), "an action that ends with a colon is followed by commands"
    assert all(command.startswith("p2psync ") for command in reason.commands)


@pytest.mark.parametrize("code", REASONS)
def test_everybody_is_told_what_to_do_and_in_grave_states_it_is_something(code: str) -> None:
    reason = REASONS[code]
    assert reason.action
    assert reason.state not in GRAVE or not reason.action.startswith("Nothing")


def test_a_sentence_is_filled_with_the_facts_and_what_the_status_knows() -> None:
    why = Attention("many-deletions", 0, {"count": 12, "total": 40})
    assert why.state == "halted"
    assert why.reason(path="recus") == "12 of 40 files in “recus” vanished at once on this machine; they were not deleted elsewhere."
    assert why.commands(mandate="Dupont SA", path="recus") == ["p2psync restore 'Dupont SA' recus", "p2psync confirm 'Dupont SA' recus"]


def test_there_may_be_nothing_to_do_but_wait_and_then_that_is_said() -> None:
    assert Attention("fetching", 0).action(path="a").startswith("Nothing to do: ")


def test_it_is_about_this_machine_unless_another_one_is_named() -> None:
    assert Attention("open-here", 0).machine == "this machine"
    assert Attention("sending", None, {"people": "Bruno", "machine": "Bruno (salon)"}).machine == "Bruno (salon)"


def test_a_fact_that_is_not_known_leaves_a_gap_and_no_traceback() -> None:
    assert Attention("open-here", 0).reason(path="a") == "A newer version of “a” waits: the file is open on this machine."


def test_names_in_braces_are_no_fields() -> None:
    assert Attention("still-written", 0).reason(path="{mandate}{0}").startswith("“{mandate}{0}” is being")
