"""Three views of one path decide what is to be done with it; this is the one place where that is decided.

**observed**: what the disk was last seen to hold. **agreed**: the version that this machine last recorded or applied there.
**heads**: the current versions according to the journal. The rows below are tried from the top; tests/engine/test_reconcile.py has
the same table with an example for each.

    observed        agreed        heads                   decision
    nothing         –             none                    Nothing
    something       –             none                    Record        a new file
    = winner        = covered     –                       Nothing       in agreement
    = winner        other         –                       Adopt         the same bytes came about on both sides
    nothing         a file        –      (single file)    Missing       never a deletion by itself
    = agreed        –             moved                   Apply         the newer version
    nothing         none          –                       Apply         a file that is new here
    nothing         something     as agreed               Record        a deletion inside a folder
    nothing         something     moved                   Apply         an edit outlives a deletion it did not know
    changed         –             as agreed               Record        a save
    = another head  –             moved                   Apply         the winner; what stands here is kept beside it
    changed         –             moved                   Record        concurrent: it becomes a head of its own

It ends: a Record makes the observed state a head, after which only Apply or Adopt can follow, after which there is Nothing.
"""

from dataclasses import dataclass
from typing import TypeAlias

from p2psync.engine.heads import Head, Heads, same_bytes
from p2psync.values.content import Gone, State
from p2psync.values.entry import Ref


@dataclass(frozen=True, slots=True)
class Agreed:
    """The version this machine last recorded or applied at a path.

    ``refs`` are the entries that stood for it, which the next save supersedes; ``seen`` are all heads known at that moment.
    """

    state: State
    refs: frozenset[Ref]
    seen: frozenset[Ref]


@dataclass(frozen=True, slots=True)
class Nothing:
    """All three views say the same."""


@dataclass(frozen=True, slots=True)
class Adopt:
    """The disk already holds the winner: only remember that."""

    agreed: Agreed


@dataclass(frozen=True, slots=True)
class Record:
    """A person changed the path: record ``state`` as superseding ``parents``."""

    state: State
    parents: tuple[Ref, ...]


@dataclass(frozen=True, slots=True)
class Apply:
    """Bring the version ``head`` to the disk, after which ``agreed`` holds."""

    head: Head
    agreed: Agreed


@dataclass(frozen=True, slots=True)
class Missing:
    """A single attached file is not there: shown, and nothing done."""


Decision: TypeAlias = Nothing | Adopt | Record | Apply | Missing


def reconcile(observed: State | None, agreed: Agreed | None, heads: Heads, *, single: bool) -> Decision:
    """What to do with one path.

    ``observed`` is None where there is surely nothing (the folder it would be in is really there); a path that could not be read
    has no observation and is not asked about. ``single`` says that the path is a file attached by itself.
    """
    here: State = Gone() if observed is None else observed
    if not heads.all:
        return Nothing() if observed is None else Record(here, ())
    goal = agreement(heads)
    if here == goal.state:
        return Nothing() if agreed == goal else Adopt(goal)
    if single and observed is None and agreed is not None and not isinstance(agreed.state, Gone):
        return Missing()
    if agreed is None:
        return _first_meeting(here, heads, goal)
    if here == agreed.state:
        return Apply(heads.winner, goal)
    moved = not heads.refs <= agreed.seen
    if moved and (isinstance(here, Gone) or _is_a_head(here, heads)):
        return Apply(heads.winner, goal)
    return Record(here, tuple(sorted(agreed.refs)))


def agreement(heads: Heads) -> Agreed:
    """What is agreed once the winner of ``heads`` stands at the path."""
    return Agreed(heads.winner.state, heads.covered, heads.refs)


def _first_meeting(here: State, heads: Heads, goal: Agreed) -> Decision:
    """Nothing was ever agreed here: what stands here is a version of its own, unless it is one of the heads."""
    if isinstance(here, Gone) or _is_a_head(here, heads):
        return Apply(heads.winner, goal)
    return Record(here, ())


def _is_a_head(state: State, heads: Heads) -> bool:
    return any(same_bytes(state, head.state) for head in heads.all)
