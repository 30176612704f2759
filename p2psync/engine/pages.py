"""Which chunk lists are wanted, who is asked for which, and the pages that have come. A list is fetched from one peer, page by page; when
that one falls silent another is asked for the whole list, if there is one.

What a page may be follows from the content that it is the list of: so nobody can be kept busy with pages without end.
"""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from p2psync.engine.load import Load
from p2psync.engine.messages import LISTING_PAGE
from p2psync.values.content import CHUNK_MIN, MAX_LISTING, Content
from p2psync.values.digest import Digest
from p2psync.values.errors import Malformed

ENTRY = 36
"""Bytes of a chunk list for each chunk."""
LISTS = 16
"""Chunk lists that one peer is asked for at the same time."""

P = TypeVar("P", bound=Hashable)


@dataclass
class _Wanted(Generic[P]):
    content: Content
    asked: P | None = None
    pages: int | None = None
    come: list[bytes] = field(default_factory=list)
    lacks: set[P] = field(default_factory=set)
    late: set[P] = field(default_factory=set)


def most_pages(content: Content) -> int:
    """How many pages the chunk list of this content can have at most."""
    return -(-min(MAX_LISTING, ENTRY * (content.size // CHUNK_MIN + 1)) // LISTING_PAGE)


class Pages(Generic[P]):
    """The chunk lists that one mandate wants from its peers."""

    def __init__(self) -> None:
        self._wanted: dict[Digest, _Wanted[P]] = {}
        self._open: dict[Digest, None] = {}
        self._peers: dict[P, Load] = {}
        self._busy: dict[P, int] = {}

    def want(self, content: Content) -> None:
        """Want the chunk list of this content."""
        if content.listing not in self._wanted:
            self._wanted[content.listing] = _Wanted(content)
            self._open[content.listing] = None

    def drop(self, listing: Digest) -> None:
        """It is not wanted any more, or it is here."""
        wanted = self._wanted.get(listing)
        if wanted is not None:
            self._free(wanted)
            del self._wanted[listing], self._open[listing]

    def add_peer(self, peer: P, load: Load) -> None:
        """``peer`` can be asked from now on, over a link with this load."""
        self._peers.setdefault(peer, load)

    def remove_peer(self, peer: P) -> None:
        """``peer`` is gone; what was asked of it is open again."""
        self.gave_up(peer)
        for wanted in self._wanted.values():
            wanted.lacks.discard(peer)
            wanted.late.discard(peer)
        self._peers.pop(peer, None)

    def tend(self, peer: P) -> bool:
        """``peer`` is silent: others are asked for its lists if there are any who may have them; returns whether there is such a list."""
        mine = [wanted for wanted in self._wanted.values() if wanted.asked == peer and self._others(wanted)]
        for wanted in mine:
            self._free(wanted)
            wanted.late.add(peer)
        return bool(mine)

    def answers(self, peer: P) -> None:
        """``peer`` is silent no more."""
        for wanted in self._wanted.values():
            wanted.late.discard(peer)

    def _others(self, wanted: _Wanted[P]) -> bool:
        gone = wanted.lacks | wanted.late
        return any(other not in gone and other != wanted.asked and not load.late for other, load in self._peers.items())

    def gave_up(self, peer: P) -> None:
        """``peer`` did not answer: as if it lacked all that it was asked for."""
        for wanted in list(self._wanted.values()):
            if wanted.asked == peer:
                self._lacks(wanted, peer)

    def lacks(self, peer: P, listing: Digest) -> None:
        """``peer`` says that it does not have the list."""
        wanted = self._wanted.get(listing)
        if wanted is not None and wanted.asked == peer:
            self._lacks(wanted, peer)

    def has_more(self, peer: P) -> int:
        """``peer`` has got something new: what it lacked may be asked of it again; how much that is."""
        lacked = [wanted for wanted in self._wanted.values() if peer in wanted.lacks]
        for wanted in lacked:
            wanted.lacks.discard(peer)
        return len(lacked)

    def requests(self, peer: P, now: float = 0.0) -> Iterator[Content]:
        """The lists whose first page to ask ``peer`` for now, noted as asked."""
        load = self._peers.get(peer)
        for listing in list(self._open):
            if load is None or load.resting or load.late or not load.takes(LISTING_PAGE) or self._busy.get(peer, 0) >= LISTS:
                return
            wanted = self._wanted[listing]
            if peer not in wanted.lacks and peer not in wanted.late:
                del self._open[listing]
                wanted.asked = peer
                self._busy[peer] = self._busy.get(peer, 0) + 1
                load.add(LISTING_PAGE, now)
                yield wanted.content

    def page(self, peer: P, listing: Digest, page: int, pages: int, data: bytes) -> tuple[Content, int | bytes] | None:
        """A page has come: the content with the number of the page to ask for next or, after the last, the whole list; None: nobody asked.

        Raises:
            Malformed: it cannot be a page of that list.
        """
        wanted = self._wanted.get(listing)
        if wanted is None or wanted.asked != peer or page != len(wanted.come) or page == wanted.pages:
            return None
        last = page + 1 == pages
        if wanted.pages not in (None, pages) or pages > most_pages(wanted.content) or (len(data) != LISTING_PAGE and not last):
            raise Malformed(why="pages that are no chunk list")
        wanted.pages = pages
        wanted.come.append(data)
        return wanted.content, b"".join(wanted.come) if last else page + 1

    def nobody_has(self, listing: Digest) -> bool:
        """Whether every peer that can be asked now lacks this list; true when there is no peer."""
        wanted = self._wanted.get(listing)
        return wanted is not None and all(peer in wanted.lacks for peer in self._peers)

    def _lacks(self, wanted: _Wanted[P], peer: P) -> None:
        self._free(wanted)
        wanted.lacks.add(peer)

    def _free(self, wanted: _Wanted[P]) -> None:
        """It is asked of nobody from now on."""
        if wanted.asked is not None:
            self._peers[wanted.asked].done(LISTING_PAGE)
            self._busy[wanted.asked] -= 1
            if not self._busy[wanted.asked]:
                del self._busy[wanted.asked]
        wanted.asked, wanted.pages, wanted.come = None, None, []
        self._open[wanted.content.listing] = None
