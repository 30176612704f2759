"""What the documents say in tables is what the program does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from p2psync.engine.attention import REASONS
from p2psync.engine.session import rules

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


@pytest.mark.parametrize(
    ("page", "name", "table"), [("protocol.md", "session table", session_table()), ("status-api.md", "reasons", reasons_table())]
)
def test_the_tables_in_the_documents_are_the_programs(page: str, name: str, table: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    before, _, rest = text.partition(f"<!-- {name}: begin -->\n")
    shown, end, after = rest.partition(f"<!-- {name}: end -->")
    if os.environ.get("P2PSYNC_WRITE_TABLES"):
        (DOCS / page).write_text(f"{before}<!-- {name}: begin -->\n{table}{end}{after}", encoding="utf-8")
        return
    assert shown == table, "bring the document up to date: P2PSYNC_WRITE_TABLES=1 scripts/test tests/test_docs.py"
