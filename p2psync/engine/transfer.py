"""Which chunks are wanted, and who is asked for which: bounded for each peer, small files first, nobody asked twice for what they lack."""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from p2psync.values.digest import Digest

IN_FLIGHT = 16 * 1024 * 1024
"""Bytes asked of one peer and not arrived."""
AT_ONCE = 256
"""Chunks in one request."""
SMALL = 1024 * 1024
"""Files up to this size go before larger ones."""

P = TypeVar("P", bound=Hashable)


@dataclass
class _Peer:
    asked: dict[Digest, int] = field(default_factory=dict)
    lacks: set[Digest] = field(default_factory=set)
    size: int = 0


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

    def add_peer(self, peer: P) -> None:
        """``peer`` can be asked from now on."""
        self._peers.setdefault(peer, _Peer())

    def remove_peer(self, peer: P) -> None:
        """``peer`` is gone; what was asked of it is open again."""
        for digest in self._peers.pop(peer, _Peer()).asked:
            self._asked.pop(digest, None)

    def lacks(self, peer: P, digest: Digest) -> None:
        """``peer`` says that it does not have the chunk."""
        known = self._peers.get(peer)
        if known is not None:
            known.lacks.add(digest)
            self._done(known, digest)
        if self._asked.get(digest) == peer:
            del self._asked[digest]

    def has_more(self, peer: P) -> None:
        """``peer`` has got something new: what it lacked may be asked of it again."""
        if peer in self._peers:
            self._peers[peer].lacks.clear()

    def arrived(self, digest: Digest) -> bool:
        """The chunk is here; False when nobody wanted it."""
        wanted = self.wanted(digest)
        self.drop([digest])
        return wanted

    def requests(self, peer: P) -> list[Digest]:
        """What to ask ``peer`` for now: at most 256 chunks and 16 MiB under way; noted as asked."""
        known = self._peers.get(peer)
        chosen: list[Digest] = []
        if known is None:
            return chosen
        for queue in (self._small, self._large):
            for digest, size in queue.items():
                if len(chosen) == AT_ONCE or (known.size + size > IN_FLIGHT and known.size):
                    return chosen
                if digest in self._asked or digest in known.lacks:
                    continue
                self._asked[digest] = peer
                known.asked[digest] = size
                known.size += size
                chosen.append(digest)
        return chosen

    def nobody_has(self, digest: Digest) -> bool:
        """Whether every peer that can be asked now has said that it lacks the chunk; true when there is no peer."""
        return all(digest in peer.lacks for peer in self._peers.values())

    def _done(self, peer: _Peer, digest: Digest) -> None:
        peer.size -= peer.asked.pop(digest, 0)

    def __len__(self) -> int:
        return len(self._small) + len(self._large)
