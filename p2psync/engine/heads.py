"""The heads of one path: the versions that nothing supersedes, and the rule by which everybody picks the same one.

A conflict is two heads with different bytes. A deletion that was made without knowing of an edit is no version of its own: the edit
stands. Which head stays at the path is the same for every member: one that was saved there by somebody who knew of the others stays,
so that who works on during a conflict does not have the file changed under their hands; apart from that it is arbitrary, by what the
files hold: the name of an entry is a hash over clocks too, and clocks decide nothing. The others are kept beside it.
"""

from dataclasses import dataclass, field

from p2psync.values.content import File, Folder, Gone, State
from p2psync.values.entry import Ref


@dataclass(frozen=True, slots=True)
class Head:
    """One current version of a path: the entry that made it and what it says the path holds.

    ``passed_over`` says that another head was made by somebody who knew of this one and let it stand beside; ``mtime_ns`` is when its
    author saved the file, which decides nothing.
    """

    ref: Ref
    state: State
    passed_over: bool = False
    mtime_ns: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Heads:
    """All heads of one path, in the order of their content, then of their entries; empty when the path was never recorded."""

    all: tuple[Head, ...] = ()

    @classmethod
    def of(cls, heads: list[Head]) -> "Heads":
        """The heads in their one order."""
        return cls(tuple(sorted(heads, key=lambda head: (_content(head.state), head.ref))))

    @property
    def refs(self) -> frozenset[Ref]:
        """The entries that the heads are."""
        return frozenset(head.ref for head in self.all)

    @property
    def winner(self) -> Head:
        """The head that stays at the path: a folder before a file before a deletion, then one not passed over, then the first by content.

        Of heads that are the same but for their entries the first entry is as good as any.
        """
        if len(self.all) == 1:
            return self.all[0]
        return min(self.all, key=lambda head: (_RANK[type(head.state)], head.passed_over, _content(head.state), head.ref))

    @property
    def others(self) -> tuple[Head, ...]:
        """One head for each further version: files whose bytes differ from the winner's and from each other's."""
        if len(self.all) < 2:
            return ()
        found: list[Head] = []
        for head in self.all:
            known = [self.winner, *found]
            if isinstance(head.state, File) and not any(same_bytes(head.state, other.state) for other in known):
                found.append(head)
        return tuple(found)

    @property
    def covered(self) -> frozenset[Ref]:
        """The entries that a save at the path supersedes: the winner, what equals it, and deletions it outlived."""
        if len(self.all) == 1:
            return self.refs
        winner = self.winner.state
        return frozenset(head.ref for head in self.all if same_bytes(head.state, winner) or isinstance(head.state, Gone))


def same_bytes(one: State, other: State) -> bool:
    """Whether two states hold the same bytes; permissions aside, for the same bytes never conflict."""
    if isinstance(one, File) and isinstance(other, File):
        return one.content == other.content
    return type(one) is type(other)


def _content(state: State) -> tuple[bytes, int, bytes, bool]:
    """What a state holds, in an order that depends on nothing else: by digest, and of equal bytes first what nobody runs."""
    if not isinstance(state, File):
        return b"", 0, b"", False
    return state.content.digest, state.content.size, state.content.listing, state.executable


_RANK: dict[type[State], int] = {Folder: 0, File: 1, Gone: 2}
