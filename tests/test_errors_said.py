"""Every error for people can be raised, and wherever it is, its sentence gets all that it speaks of."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

import p2psync
from p2psync.values.errors import P2psyncError, UserError, template

PACKAGE = Path(p2psync.__file__).parent
TREES = {file: ast.parse(file.read_text(encoding="utf-8")) for file in sorted(PACKAGE.rglob("*.py"))}


def _below(error: type[P2psyncError]) -> Iterator[type[P2psyncError]]:
    for kind in error.__subclasses__():
        yield kind
        yield from _below(kind)


def kinds() -> list[type[P2psyncError]]:
    for module in pkgutil.walk_packages(p2psync.__path__, "p2psync."):
        importlib.import_module(module.name)
    ours = {kind for kind in _below(UserError) if kind.__module__.startswith("p2psync.")}
    return sorted(ours, key=lambda kind: (kind.__name__, kind.__module__))


KINDS = kinds()


def _called(call: ast.Call) -> list[str]:
    function = call.func
    branches = [function.body, function.orelse] if isinstance(function, ast.IfExp) else [function]
    return [_name(one) for one in branches]


def _name(called: ast.expr) -> str:
    """What is called; not a message of the protocol, some of which have the names of errors."""
    if isinstance(called, ast.Attribute):
        return "" if ast.unparse(called.value) == "m" else called.attr
    return called.id if isinstance(called, ast.Name) else ""


def _calls() -> Iterator[tuple[str, str, set[str] | None]]:
    for file, tree in TREES.items():
        for call in ast.walk(tree):
            if isinstance(call, ast.Call):
                names = {keyword.arg for keyword in call.keywords}
                for called in _called(call):
                    yield f"{file.relative_to(PACKAGE)}:{call.lineno}", called, None if None in names else {one for one in names if one}


CALLS = list(_calls())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_its_sentence_gets_all_that_it_speaks_of(kind: type[UserError]) -> None:
    wanted = {name for _, name, _, _ in string.Formatter().parse(template(kind)) if name}
    namesakes = [other for other in (*KINDS, *_below(P2psyncError)) if other.__name__ == kind.__name__ and other is not kind]
    own = [(where, facts) for where, called, facts in CALLS if called == kind.__name__ and facts is not None]
    for where, facts in own:
        assert not wanted - facts or namesakes, f"{where} says nothing of {wanted - facts}"


NAMED = {
    node.id if isinstance(node, ast.Name) else node.attr
    for tree in TREES.values()
    for node in ast.walk(tree)
    if isinstance(node, ast.Name | ast.Attribute)
}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.__subclasses__()], ids=lambda kind: kind.__name__)
def test_something_can_raise_it(kind: type[UserError]) -> None:
    assert kind.__name__ in NAMED
