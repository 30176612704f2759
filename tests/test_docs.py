"""What the documents say in tables is what the program does."""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import p2psync
from p2psync.daemon import admission
from p2psync.edge.http import BadRequest
from p2psync.engine.attention import REASONS
from p2psync.engine.concerns import CONCERNS
from p2psync.engine.findings import FINDINGS
from p2psync.engine.invitation import Refusal
from p2psync.engine.session import rules
from p2psync.values.errors import P2psyncError, UserError, code_of, parted, template

DOCS = Path(__file__).parents[1] / "docs"


def session_table() -> str:
    """The transition table of a session, as docs/protocol.md shows it: messages that do the same in one row."""
    alike: dict[tuple[str, str, str, str], list[str]] = {}
    for state, message, after, other, condition in rules():
        alike.setdefault((state, after, other, condition), []).append(message)
    rows = [f"| {state} | {', '.join(sorted(said))} | {after} | {other} | {only} |" for (state, after, other, only), said in alike.items()]
    return "| a side that… | may say | and then… | the other then… | legal |\n|---|---|---|---|---|\n" + "\n".join(sorted(rows)) + "\n"


def reasons_table() -> str:
    """Every reason for which a file may not be up to date, as docs/status-api.md shows it."""
    rows = [
        f"| `{code}` | {reason.state} | {reason.sentence} | {reason.action} | {', '.join(f'`{command}`' for command in reason.commands)} |"
        for code, reason in REASONS.items()
    ]
    return "| code | state | reason | action | commands |\n|---|---|---|---|---|\n" + "\n".join(rows) + "\n"


def findings_table() -> str:
    """What the doctor may find."""
    rows = [
        f"| `{code}` | {one.about} | {'ok' if one.ok else 'look here'} | {one.sentence} | {one.action} |"
        f" {', '.join(f'`{command}`' for command in one.commands)} |"
        for code, one in FINDINGS.items()
    ]
    return "| code | about | | sentence | action | commands |\n|---|---|---|---|---|---|\n" + "\n".join(rows) + "\n"


def concerns_table() -> str:
    """What is said of machines, mandates, participants and tickets."""
    rows = [
        f"| `{code}` | {c.about} | {c.sentence} | {c.action} | {', '.join(f'`{command}`' for command in c.commands)} |"
        for code, c in CONCERNS.items()
    ]
    return "| code | about | reason | action | commands |\n|---|---|---|---|---|\n" + "\n".join(rows) + "\n"


def _kinds_of(error: type[P2psyncError]) -> Iterator[type[P2psyncError]]:
    for kind in error.__subclasses__():
        yield kind
        yield from _kinds_of(kind)


def errors() -> list[type[P2psyncError]]:
    """Every error that the socket can answer with, and that can stand among the problems: those of the command line itself left out."""
    for module in pkgutil.walk_packages(p2psync.__path__, "p2psync."):
        importlib.import_module(module.name)
    kinds = [*_kinds_of(UserError), BadRequest, *_kinds_of(BadRequest)]
    return sorted((kind for kind in kinds if kind.__module__.split(".")[1] not in ("cli", "web")), key=code_of)


def _own_refusals() -> Iterator[tuple[str, int, str]]:
    """The answers that are no error's: code, HTTP status and sentence of each ``refusal(…)`` that is spelled out in the package."""
    for file in sorted(Path(p2psync.__file__).parent.rglob("*.py")):
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "refusal" and isinstance(call.args[1], ast.Constant):
                status, code, sentence = call.args
                assert isinstance(status, ast.Constant) and isinstance(code, ast.Constant)
                yield str(code.value), int(str(status.value)), _spelled(sentence)


def _spelled(sentence: ast.expr) -> str:
    if isinstance(sentence, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in sentence.values)
    assert isinstance(sentence, ast.Constant)
    return str(sentence.value)


def errors_table() -> str:
    """Every code of a refusal or a problem."""
    rows = {}
    for kind in errors():
        cause, action = parted(template(kind))
        rows[code_of(kind)] = f"| `{code_of(kind)}` | {getattr(kind, 'status', 400)} | {cause} | {action} |"
    for code, status, sentence in _own_refusals():
        cause, action = parted(sentence)
        rows.setdefault(code, f"| `{code}` | {status} | {cause} | {action} |")
    lines = [rows[code].replace("<", "&lt;") for code in sorted(rows)]
    return "| code | HTTP | what is wrong | next action |\n|---|---|---|---|\n" + "\n".join(lines) + "\n"


def test_the_codes_are_each_ones_own() -> None:
    for codes in ([code_of(kind) for kind in errors()], [*REASONS, *CONCERNS]):
        assert sorted(codes) == sorted(set(codes))


@pytest.mark.parametrize("kind", [kind for kind in errors() if issubclass(kind, UserError)], ids=code_of)
def test_every_error_says_what_is_wrong_and_then_what_to_do(kind: type[UserError]) -> None:
    if kind.__subclasses__():  # only what is below it is raised
        return
    cause, action = parted(template(kind))
    assert cause and action, template(kind)
    assert action.startswith("{") or action[0].isupper() or action[0] in "“0123456789-p", action


@pytest.mark.parametrize("refusal", Refusal)
def test_every_refusal_of_a_ticket_has_its_words(refusal: Refusal) -> None:
    assert refusal in admission._WHY or refusal in (Refusal.USED, Refusal.STALE)


TABLES = [
    ("protocol.md", "session table", session_table()),
    ("status-api.md", "reasons", reasons_table()),
    ("status-api.md", "concerns", concerns_table()),
    ("status-api.md", "findings", findings_table()),
    ("status-api.md", "errors", errors_table()),
]


@pytest.mark.parametrize(("page", "name", "table"), TABLES, ids=[name for _, name, _ in TABLES])
def test_the_tables_in_the_documents_are_the_programs(page: str, name: str, table: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    before, _, rest = text.partition(f"<!-- {name}: begin -->\n")
    shown, end, after = rest.partition(f"<!-- {name}: end -->")
    if os.environ.get("P2PSYNC_WRITE_TABLES"):
        (DOCS / page).write_text(f"{before}<!-- {name}: begin -->\n{table}{end}{after}", encoding="utf-8")
        return
    assert shown == table, "bring the document up to date: P2PSYNC_WRITE_TABLES=1 scripts/test tests/test_docs.py"
