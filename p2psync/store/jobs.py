"""What passes between deciding and doing: a job for one path, a content that is wanted, and what a round came to."""

from dataclasses import dataclass, field

from p2psync.engine.attention import Attention
from p2psync.engine.heads import Heads
from p2psync.engine.reconcile import Adopt, Apply, Nothing
from p2psync.store.ahead import Ahead
from p2psync.store.locations import Location
from p2psync.store.paths import PathView
from p2psync.values.content import Chunk, Content, Listing
from p2psync.values.names import RelPath
from p2psync.values.record import Record

BUSY_AGAIN = 0.5
"""Seconds until a file that is open in a program is tried again."""


@dataclass(frozen=True, slots=True)
class Want:
    """A content that is not here: its listing when that is known, and the chunks that are missing."""

    content: Content
    listing: Listing | None
    chunks: tuple[Chunk, ...] = ()


@dataclass
class Worked:
    """What a round came to.

    ``records`` were written and may be told; ``wants`` are to be fetched; ``done`` are the paths that were decided about; ``again`` wait
    so many seconds; ``look_again`` changed under our hands; ``placed`` are attachments that got their place on this disk, and ``absent``
    those whose folder is not there, or is another one: both are to be surveyed. ``ahead`` of the records go small contents.
    """

    records: list[Record] = field(default_factory=list)
    ahead: Ahead = field(default_factory=Ahead)
    wants: dict[RelPath, Want] = field(default_factory=dict)
    attention: dict[str, Attention | None] = field(default_factory=dict)
    again: dict[RelPath, float] = field(default_factory=dict)
    todo: set[RelPath] = field(default_factory=set)
    done: set[RelPath] = field(default_factory=set)
    look_again: set[RelPath] = field(default_factory=set)
    placed: set[RelPath] = field(default_factory=set)
    absent: set[RelPath] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Job:
    """One path that something has to be brought to: its views, its heads, and where it is."""

    view: PathView
    heads: Heads
    location: Location
    decision: Apply | Nothing | Adopt

    @property
    def path(self) -> RelPath:
        """The path."""
        return self.view.path

    @property
    def parts(self) -> tuple[str, ...]:
        """Its names below the root."""
        return self.location.parts(self.view.disk)
