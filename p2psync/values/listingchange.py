"""How one chunk list differs from another, when that can be said shortly: what they begin and end with alike, and what is between.

4 KiB that change in 1 GiB change one entry of 16,000 in its list, which has half a megabyte.
"""

from dataclasses import dataclass

from p2psync.values.content import REF, Listing
from p2psync.values.digest import Digest
from p2psync.values.errors import Malformed

MOST = 64 * 1024
"""Bytes between beginning and end; a list that differs in more travels as it is."""


@dataclass(frozen=True, slots=True)
class ListingChange:
    """A list that begins with ``before`` chunks of the list ``known``, ends with ``after`` of them, and has ``between`` in the middle."""

    known: Digest
    before: int
    after: int
    between: bytes

    @classmethod
    def of(cls, new: Listing, old: Listing) -> "ListingChange | None":
        """How ``new`` differs from ``old``; None when that is no shorter than the list, or too long."""
        most = min(len(new), len(old))
        before = _alike(new, old, most, from_end=False)
        after = _alike(new, old, most - before, from_end=True)
        between = new.packed[before * REF : len(new.packed) - after * REF]
        return cls(old.digest, before, after, between) if len(between) <= min(MOST, len(new.packed) // 2) else None

    def applied(self, old: Listing) -> Listing:
        """The new list; whoever asked for one compares its digest. Raises: Malformed: ``old`` is not long enough."""
        if self.before + self.after > len(old):
            raise Malformed(why="more of a chunk list than there is")
        return Listing(old.packed[: self.before * REF] + self.between + old.packed[len(old.packed) - self.after * REF :])


def _alike(new: Listing, old: Listing, most: int, *, from_end: bool) -> int:
    """How many chunks both have alike at the beginning, or at the end, at most ``most``: found by halving."""
    least = 0
    while least < most:
        middle = (least + most + 1) // 2
        if _part(new, middle, from_end) == _part(old, middle, from_end):
            least = middle
        else:
            most = middle - 1
    return least


def _part(listing: Listing, chunks: int, from_end: bool) -> bytes:
    size = chunks * REF
    return listing.packed[len(listing.packed) - size :] if from_end else listing.packed[:size]
