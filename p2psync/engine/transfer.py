"""Which chunks are wanted, and who is asked for which: bounded for each link, small files first, nobody asked twice for what they lack.

A ``Load`` is what one link has under way, for all mandates together. New requests are made when half of what may be under way has come
back, so that they are few and large, and the other side is never asked for more at once than it has promised to remember.
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from p2psync.values.digest import Digest

IN_FLIGHT = 16 * 1024 * 1024
"""Bytes asked for over one link and not arrived."""
ITEMS = 1024
"""Chunks and pages of chunk lists asked for over one link and not arrived."""
AT_ONCE = 256
"""Chunks in one request."""
SMALL = 1024 * 1024
"""Files up to this size go before larger ones."""

P = TypeVar("P", bound=Hashable)


@dataclass
class Load:
    """What is under way on one link. While ``resting``, the other side did not answer, and is asked for nothing."""

    items: int = 0
    size: int = 0
    resting: bool = False

    @property
    def light(self) -> bool:
        """Whether it is time to ask for more."""
        return not self.resting and self.items <= ITEMS // 2 and self.size <= IN_FLIGHT // 2

    def takes(self, size: int) -> bool:
        """Whether one more of ``size`` bytes may be asked for."""
        return self.items < ITEMS and (not self.items or self.size + size <= IN_FLIGHT)

    def add(self, size: int) -> None:
        """One more was asked for."""
        self.items += 1
        self.size += size

    def done(self, size: int) -> None:
        """One has come, or is not awaited any more."""
        self.items -= 1
        self.size -= size


@dataclass
class _Peer:
    load: Load
    asked: dict[Digest, int] = field(default_factory=dict)
    lacks: set[Digest] = field(default_factory=set)


class Transfer(Generic[P]):
    """The chunks that one mandate wants from its peers."""

    def __init__(self) -> None:
        self._small: dict[Digest, int] = {}
        self._large: dict[Digest, int] = {}
        self._asked: dict[Digest, P] = {}
        self._peers: dict[P, _Peer] = {}

    def want(self, chunks: Iterable[tuple[Digest, int]], *, of: int) -> None:
        """Want these chunks (digest, size in bytes) of a file of ``of`` bytes, in this order."""
        queue = self._small if of <= SMALL else self._large
        for digest, size in chunks:
            if digest not in self._small and digest not in self._large:
                queue[digest] = size

    def drop(self, digests: Iterable[Digest]) -> None:
        """These chunks are no longer wanted; what was asked for may still arrive."""
        for digest in digests:
            self._small.pop(digest, None)
            self._large.pop(digest, None)
            peer = self._asked.pop(digest, None)
            if peer is not None and peer in self._peers:
                self._done(self._peers[peer], digest)

    def wanted(self, digest: Digest) -> bool:
        """Whether this chunk is still wanted."""
        return digest in self._small or digest in self._large

    def add_peer(self, peer: P, load: Load) -> None:
        """``peer`` can be asked from now on, over a link with this load."""
        self._peers.setdefault(peer, _Peer(load))

    def remove_peer(self, peer: P) -> None:
        """``peer`` is gone; what was asked of it is open again."""
        known = self._peers.pop(peer, None)
        if known is not None:
            self._release(known)

    def lacks(self, peer: P, digest: Digest) -> None:
        """``peer`` says that it does not have the chunk."""
        known = self._peers.get(peer)
        if known is None or not self.wanted(digest):
            return
        known.lacks.add(digest)
        self._done(known, digest)
        if self._asked.get(digest) == peer:
            del self._asked[digest]

    def gave_up(self, peer: P) -> None:
        """``peer`` did not answer: as if it lacked all that it was asked for."""
        known = self._peers.get(peer)
        if known is not None:
            known.lacks.update(known.asked)
            self._release(known)

    def has_more(self, peer: P) -> int:
        """``peer`` has got something new: what it lacked may be asked of it again; how much that is."""
        known = self._peers.get(peer)
        lacked = len(known.lacks) if known else 0
        if known is not None:
            known.lacks.clear()
        return lacked

    def arrived(self, digest: Digest) -> bool:
        """The chunk is here; False when nobody wanted it."""
        wanted = self.wanted(digest)
        self.drop([digest])
        return wanted

    def requests(self, peer: P) -> list[Digest]:
        """What to ask ``peer`` for now, at most 256 chunks, noted as asked; nothing while enough is under way."""
        known = self._peers.get(peer)
        chosen: list[Digest] = []
        if known is None or not known.load.light:
            return chosen
        for queue in (self._small, self._large):
            for digest, size in queue.items():
                if len(chosen) == AT_ONCE or not known.load.takes(size):
                    return chosen
                if digest in self._asked or digest in known.lacks:
                    continue
                self._asked[digest] = peer
                known.asked[digest] = size
                known.load.add(size)
                chosen.append(digest)
        return chosen

    def nobody_has(self, digests: Iterable[Digest]) -> bool:
        """Whether every peer that can be asked now has said that it lacks one and the same of these; true when there is no peer."""
        if not self._peers:
            return True
        if not all(peer.lacks for peer in self._peers.values()):
            return False
        fewest, *others = sorted((peer.lacks for peer in self._peers.values()), key=len)
        return any(digest in fewest and all(digest in lacks for lacks in others) for digest in digests)

    def _release(self, peer: _Peer) -> None:
        for digest in list(peer.asked):
            self._asked.pop(digest, None)
            self._done(peer, digest)

    def _done(self, peer: _Peer, digest: Digest) -> None:
        size = peer.asked.pop(digest, None)
        if size is not None:
            peer.load.done(size)

    def __len__(self) -> int:
        return len(self._small) + len(self._large)
