"""Which row of engine/reconcile's table a decision fell under, told by the views alone: the table of its head written a second time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from p2psync.engine.heads import Heads, same_bytes
from p2psync.engine.reconcile import Adopt, Agreed, Apply, Decision, Missing, Nothing, Record, agreement
from p2psync.store import work
from p2psync.values.content import Gone, State

ROWS: dict[str, type] = {
    "nothing was ever there": Nothing,
    "a new file": Record,
    "in agreement": Nothing,
    "the same bytes on both sides": Adopt,
    "a single file is missing": Missing,
    "a newer version": Apply,
    "a file that is new here": Apply,
    "a deletion inside a folder": Record,
    "an edit outlives a deletion": Apply,
    "a save": Record,
    "another head stands here": Apply,
    "concurrent": Record,
}


def row_of(observed: State | None, agreed: Agreed | None, heads: Heads, single: bool) -> str:
    """The row of the three views."""
    here: State = Gone() if observed is None else observed
    if not heads.all:
        return "nothing was ever there" if observed is None else "a new file"
    goal = agreement(heads)
    if here == goal.state:
        return "in agreement" if agreed == goal else "the same bytes on both sides"
    if single and observed is None and agreed is not None and not isinstance(agreed.state, Gone):
        return "a single file is missing"
    if agreed is not None and here == agreed.state:
        return "a newer version"
    if observed is None:
        if agreed is None:
            return "a file that is new here"
        return "a deletion inside a folder" if heads.refs <= agreed.seen else "an edit outlives a deletion"
    moved = agreed is None or not heads.refs <= agreed.seen
    if moved and any(same_bytes(here, head.state) for head in heads.all):
        return "another head stands here"
    return "concurrent" if moved else "a save"


@contextmanager
def noting_rows(rows: Counter[str]) -> Iterator[None]:
    """Count the rows of all decisions within the block."""
    patch: Any = work
    real = patch.reconcile

    def noting(observed: State | None, agreed: Agreed | None, heads: Heads, *, single: bool) -> Decision:
        rows[row_of(observed, agreed, heads, single)] += 1
        decided: Decision = real(observed, agreed, heads, single=single)
        return decided

    patch.reconcile = noting
    try:
        yield
    finally:
        patch.reconcile = real
