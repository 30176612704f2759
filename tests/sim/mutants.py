"""Deliberate faults in the product, to show that the simulator finds such: each one is a small change of the kind that people make."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from p2psync.daemon import agenda
from p2psync.engine import pauses, settle
from p2psync.engine.heads import Heads
from p2psync.engine.reconcile import Agreed, Decision, Missing, Record, reconcile
from p2psync.store import apply, carryout, look, naming, openfiles, scan, seeing, swap, work
from p2psync.store.beside import Beside
from p2psync.store.books import Books
from p2psync.store.ledger import Ledger
from p2psync.store.openfiles import Lease
from p2psync.store.root import Root
from p2psync.values.content import Gone, Stamp, State
from p2psync.values.errors import UserError

Patches = list[tuple[Any, str, Any]]


def _nothing(*_: Any, **__: Any) -> None:
    return None


def _received_bytes_not_synced() -> Patches:
    return [(carryout, "sync_file", _nothing), (carryout, "_sync_disks", lambda steps, folders: set())]


def _received_names_not_synced() -> Patches:
    return [(carryout, "sync_folder", _nothing), (carryout, "_sync_folders", _nothing)]


def _saves_recorded_before_they_last() -> Patches:
    return [(look, "make_lasting", lambda root, changed, gone: {})]


def _ledger_without_sync() -> Patches:
    real = Ledger._connect

    def connect(ledger: Ledger) -> Any:
        db = real(ledger)
        db.execute("PRAGMA synchronous=OFF")
        return db

    return [(Ledger, "_connect", connect)]


def _no_look_again() -> Patches:
    def unseen(fd: int, folder: int, name: str, expected: Any, shown: str, forth: Callable[[], Any], lease: Lease) -> Any:
        return forth()

    return [
        (swap, "_look_and_do", unseen),
        (swap, "same_file", lambda one, other: True),
        (carryout, "_look_and_keep", _nothing),
    ]


def _old_version_not_kept() -> Patches:
    return [(apply.Applying, "_keeper", lambda self, job: _nothing), (seeing, "VAULTED", -1)]


def _forgotten_parent() -> Patches:
    def deciding(observed: State | None, agreed: Agreed | None, heads: Heads, *, single: bool) -> Decision:
        found = reconcile(observed, agreed, heads, single=single)
        return replace(found, parents=found.parents[1:]) if isinstance(found, Record) else found

    return [(work, "reconcile", deciding)]


def _every_head_a_parent() -> Patches:
    """A save supersedes whatever is current, also what whoever saved has never seen."""

    def deciding(observed: State | None, agreed: Agreed | None, heads: Heads, *, single: bool) -> Decision:
        found = reconcile(observed, agreed, heads, single=single)
        return replace(found, parents=tuple(sorted(heads.refs))) if isinstance(found, Record) else found

    return [(work, "reconcile", deciding)]


def _swapped_comparison() -> Patches:
    """A newer version is taken for granted where this disk has changed as well."""

    def deciding(observed: State | None, agreed: Agreed | None, heads: Heads, *, single: bool) -> Decision:
        if observed is not None and agreed is not None and observed != agreed.state and not heads.refs <= agreed.seen:
            return reconcile(agreed.state if not isinstance(agreed.state, Gone) else None, agreed, heads, single=single)
        return reconcile(observed, agreed, heads, single=single)

    return [(work, "reconcile", deciding)]


def _absence_deletes() -> Patches:
    def deciding(observed: State | None, agreed: Agreed | None, heads: Heads, *, single: bool) -> Decision:
        found = reconcile(observed, agreed, heads, single=single)
        return Record(Gone(), tuple(sorted(heads.refs))) if isinstance(found, Missing) else found

    return [(work, "reconcile", deciding)]


def _open_files_replaced() -> Patches:
    @contextmanager
    def held(fd: int) -> Iterator[Lease]:
        yield Lease.UNKNOWN

    return [
        (openfiles, "descriptor", _nothing),
        (openfiles, "open_in", _nothing),
        (openfiles, "is_open", _nothing),
        (openfiles, "held", held),
    ]


def _shipped_while_written() -> Patches:
    return [(settle, "QUIET", 0.0), (pauses, "QUIET", 0.0), (pauses, "HALF_THERE", 0.0)]


def _no_conflict_copy() -> Patches:
    return [(Beside, "keep_up", _nothing)]


def _never_looked_over() -> Patches:
    return [(agenda, "SURVEY_S", 1e9)]


def _begun_work_forgotten() -> Patches:
    return [(work.Work, "unfinished", lambda self: set())]


def _early_records_dropped() -> Patches:
    real = Books.accept

    def accept(self: Books, raws: list[bytes], *args: Any) -> Any:
        return real(self, raws[:-1] if len(raws) > 4 else raws, *args)

    return [(Books, "accept", accept)]


def _errors_taken_for_absence() -> Patches:
    stamp = Root.stamp

    def walked(*args: Any) -> Any:
        return (found for found in scan.walk(*args) if not isinstance(found, scan.Skipped))

    def observed(*args: Any) -> Any:
        found = scan.observe_in(*args)
        return scan.Nothing() if isinstance(found, scan.Unreadable) else found

    def stamped(root: Root, parts: tuple[str, ...]) -> Stamp | None:
        try:
            return stamp(root, parts)
        except UserError:
            return None

    return [(look, "walk", walked), (seeing, "observe_in", observed), (Root, "stamp", stamped)]


def _colliding_names_overwritten() -> Patches:
    def renamed(folder: int, old: str, target: int, new: str) -> None:
        os.rename(old, new, src_dir_fd=folder, dst_dir_fd=target)

    return [(naming, "applied", _nothing), (swap, "rename_new", renamed)]


MUTANTS: dict[str, Callable[[], Patches]] = {
    "received bytes not synced": _received_bytes_not_synced,
    "received names not synced": _received_names_not_synced,
    "saves recorded before they last": _saves_recorded_before_they_last,
    "ledger without sync": _ledger_without_sync,
    "no look again": _no_look_again,
    "old version not kept": _old_version_not_kept,
    "forgotten parent": _forgotten_parent,
    "every head a parent": _every_head_a_parent,
    "swapped comparison": _swapped_comparison,
    "absence deletes": _absence_deletes,
    "open files replaced": _open_files_replaced,
    "shipped while written": _shipped_while_written,
    "no conflict copy": _no_conflict_copy,
    "never looked over": _never_looked_over,
    "begun work forgotten": _begun_work_forgotten,
    "early records dropped": _early_records_dropped,
    "errors taken for absence": _errors_taken_for_absence,
    "colliding names overwritten": _colliding_names_overwritten,
}
"""By name: what the fault is."""
active: str | None = None
"""Which of them the product has now."""


@contextmanager
def applied(name: str | None) -> Iterator[None]:
    """Within the block the product has this fault; None: none."""
    global active
    before, active = active, name
    patches = MUTANTS[name]() if name else []
    saved = [(owner, attribute, getattr(owner, attribute)) for owner, attribute, _ in patches]
    for owner, attribute, value in patches:
        setattr(owner, attribute, value)
    try:
        yield
    finally:
        active = before
        for owner, attribute, value in reversed(saved):
            setattr(owner, attribute, value)
