"""What passes between the eyes and whoever asks them to look: spots of the disk, and what a look at them found."""

from dataclasses import dataclass, field
from typing import NamedTuple

from p2psync.engine.attention import Attention
from p2psync.values.names import RelPath


class Spot(NamedTuple):
    """A path and how the disk spells its names below the folder of its attachment (empty for the attachment itself)."""

    path: RelPath
    disk: tuple[str, ...]


@dataclass
class Looked:
    """What a look found: paths to decide about, spots to look at again after so many seconds, and what to show or no longer show.

    ``surveyed`` are the attachments that were gone through as a whole.
    """

    todo: set[RelPath] = field(default_factory=set)
    again: dict[Spot, float] = field(default_factory=dict)
    attention: dict[str, Attention | None] = field(default_factory=dict)
    surveyed: set[RelPath] = field(default_factory=set)
