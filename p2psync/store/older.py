"""Whether what stands at a path is older than what was agreed there, or nothing but a name."""

import sqlite3

from p2psync.store import versions
from p2psync.store.paths import PathView
from p2psync.values.content import File

OLDER = "older-copies"
"""The reason for which an attachment is halted whose files went back."""


def is_older(db: sqlite3.Connection, view: PathView, *, whenever: bool) -> bool:
    """Whether a version stands at a path that what was agreed there superseded, and has an older date (``whenever``: or any date)."""
    if view.observed is None or view.agreed is None or not view.agreed.refs:
        return False
    seen, agreed = view.observed.state, view.agreed.state
    if not isinstance(seen, File) or not isinstance(agreed, File) or seen.content == agreed.content:
        return False
    if versions.superseded(db, view.path, seen.content) is None:
        return False
    dates = [entry.mtime_ns for ref in view.agreed.refs if (entry := versions.entry(db, ref)) is not None]
    return whenever or any(view.observed.stamp.mtime_ns < date for date in dates)


def is_emptied(view: PathView) -> bool:
    """Whether a file without a byte stands where there was one with some."""
    seen = view.observed.state if view.observed else None
    agreed = view.agreed.state if view.agreed else None
    return isinstance(seen, File) and isinstance(agreed, File) and not seen.content.size and bool(agreed.content.size)
