"""How much of what is new one look takes on, and what is left for the next.

What a look saw is recorded and told while the next one looks at more, and what a person just saved need not wait for the end of a large
import. The first look takes on little, so that the others have something to do at once; each after it twice as much, since each also
waits for the disk.
"""

from collections.abc import Set

from p2psync.store.spots import Spot
from p2psync.values.names import RelPath

AT_FIRST = 250
"""Things of which nothing is known that the first look takes on."""
AT_ONCE = 2000
"""Things that any look or round takes on at most."""


class Slices:
    """What there was too much of for one look, by attachment; used by one thread at a time."""

    def __init__(self) -> None:
        self._left: dict[RelPath, list[Spot]] = {}
        self._most: dict[RelPath, int] = {}

    @property
    def unseen(self) -> Set[RelPath]:
        """The attachments of which something is left."""
        return self._left.keys()

    def take(self, name: RelPath) -> tuple[list[Spot], int]:
        """What is left of this attachment, last first, and how many new things the look that goes on with it takes on."""
        rest = self._left.pop(name, [])
        self._most[name] = most = min(2 * self._most[name] if rest else AT_FIRST, AT_ONCE)
        return rest, most

    def leave(self, name: RelPath, rest: list[Spot]) -> None:
        """Leave these, last first, for the next look."""
        self._left[name] = rest
