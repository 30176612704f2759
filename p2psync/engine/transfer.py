"""Which chunks are wanted, and who is asked for which: bounded for each link, small files first, nobody asked twice for what they lack.

A ``Load`` is what one link has under way, for all mandates together. New requests are made when half of what may be under way has come
back, so that they are few and large, and the other side is never asked for more at once than it has promised to remember.

What was asked of one that falls silent, or is slow, is *late* there after a moment: it is open again to the others, once nothing else is
left to ask for. The first answer counts, whoever gives it. So a chunk is under way at one machine that is on time, at most, and what
travels twice is at most what the late ones owe; that counts as under way until they have given it.

All times are seconds of one clock.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from p2psync.values.digest import Digest

IN_FLIGHT = 5 * 1024 * 1024
"""Bytes asked for over one link and not arrived. Half of it keeps a gigabit full over 20 ms; all of it may be sent again after a kill."""
ITEMS = 1024
"""Chunks and pages of chunk lists asked for over one link and not arrived."""
AT_ONCE = 256
"""Chunks in one request."""
SMALL = 1024 * 1024
"""Files up to this size go before larger ones."""

SILENT_AFTER = 1.5
"""Seconds without any answer after which what somebody owes is late."""
SLOW_AFTER = 6.0
"""Seconds after which a chunk is late that has not come from somebody who answers."""

P = TypeVar("P", bound=Hashable)


@dataclass
class Load:
    """What is under way on one link. While ``resting``, the other side did not answer, and is asked for nothing.

    ``heard_at`` is when it last answered something, ``held_at`` until when we did not listen ourselves. One that is ``late`` owes
    something and is silent: it is asked for nothing more until it answers.
    """

    items: int = 0
    size: int = 0
    resting: bool = False
    late: bool = False
    heard_at: float = 0.0
    held_at: float = 0.0

    @property
    def light(self) -> bool:
        """Whether it is time to ask for more."""
        return not self.resting and not self.late and self.items <= ITEMS // 2 and self.size <= IN_FLIGHT // 2

    def takes(self, size: int) -> bool:
        """Whether one more of ``size`` bytes may be asked for."""
        return self.items < ITEMS and (not self.items or self.size + size <= IN_FLIGHT)

    def add(self, size: int, now: float = 0.0) -> None:
        """One more was asked for."""
        if not self.items:
            self.heard_at = max(self.heard_at, now)  # from when something is owed the silence counts
        self.items += 1
        self.size += size

    def done(self, size: int) -> None:
        """One has come, or is not awaited any more."""
        self.items -= 1
        self.size -= size

    def heard(self, now: float) -> bool:
        """The other side answered something; returns whether it had been late."""
        was_late, self.late, self.heard_at = self.late, False, now
        return was_late

    def held_up(self, now: float) -> None:
        """Until now we did not listen, so that silence was no wonder."""
        self.heard_at = self.held_at = now

    def judge(self, now: float) -> bool:
        """Whether the other side owes something and has been silent for too long: then it is late."""
        self.late = self.late or bool(self.items and now - self.heard_at >= SILENT_AFTER)
        return self.late

    def is_due(self, asked_at: float, now: float) -> bool:
        """Whether something that was asked for then should have come by now."""
        silent, slow = now - max(asked_at, self.heard_at), now - max(asked_at, self.held_at)
        return silent >= SILENT_AFTER or slow >= SLOW_AFTER


@dataclass
class _Chunk(Generic[P]):
    """A chunk that is wanted: everybody who was asked for it, and the one of them who is on time, if there is one."""

    size: int
    queue: int
    asked: list[P] = field(default_factory=list)
    on_time: P | None = None


@dataclass
class _Peer:
    """``at`` is how far each queue has been gone through for this peer: whatever it could be asked for now comes after that."""

    load: Load
    at: list[int] = field(default_factory=lambda: [0, 0])
    asked: dict[Digest, int] = field(default_factory=dict)
    on_time: OrderedDict[Digest, float] = field(default_factory=OrderedDict)
    lacks: set[Digest] = field(default_factory=set)


class Transfer(Generic[P]):
    """The chunks that one mandate wants from its peers."""

    def __init__(self) -> None:
        self._wanted: dict[Digest, _Chunk[P]] = {}
        self._queues: tuple[list[Digest], list[Digest]] = ([], [])
        self._waiting = [0, 0]
        self._peers: dict[P, _Peer] = {}

    def want(self, chunks: Iterable[tuple[Digest, int]], *, of: int) -> None:
        """Want these chunks (digest, size in bytes) of a file of ``of`` bytes, in this order."""
        queue = 0 if of <= SMALL else 1
        for digest, size in chunks:
            if digest not in self._wanted:
                self._wanted[digest] = _Chunk(size, queue)
                self._waiting[queue] += 1
                self._open(digest)

    def drop(self, digests: Iterable[Digest]) -> None:
        """These chunks are no longer wanted; what was asked for may still arrive."""
        for digest in digests:
            chunk = self._wanted.pop(digest, None)
            if chunk is not None:
                self._waiting[chunk.queue] -= 1
                for peer in chunk.asked:
                    self._done(self._peers[peer], digest)

    def wanted(self, digest: Digest) -> bool:
        """Whether this chunk is still wanted."""
        return digest in self._wanted

    def add_peer(self, peer: P, load: Load) -> None:
        """``peer`` can be asked from now on, over a link with this load."""
        self._peers.setdefault(peer, _Peer(load))

    def remove_peer(self, peer: P) -> None:
        """``peer`` is gone; what was asked of it is open again."""
        known = self._peers.get(peer)
        if known is not None:
            self._release(peer, known)
            del self._peers[peer]

    def lacks(self, peer: P, digest: Digest) -> None:
        """``peer`` says that it does not have the chunk."""
        known = self._peers.get(peer)
        if known is not None:
            if digest in self._wanted:
                known.lacks.add(digest)
            self._take_back(peer, known, digest)

    def gave_up(self, peer: P) -> None:
        """``peer`` did not answer: as if it lacked all that it was asked for."""
        known = self._peers.get(peer)
        if known is not None:
            known.lacks.update(digest for digest in known.asked if digest in self._wanted)
            self._release(peer, known)

    def has_more(self, peer: P) -> int:
        """``peer`` has got something new: what it lacked may be asked of it again; how much that is."""
        known = self._peers.get(peer)
        lacked = len(known.lacks) if known else 0
        if known is not None and lacked:
            known.lacks.clear()
            known.at = [0, 0]
        return lacked

    def arrived(self, peer: P, digest: Digest) -> bool:
        """``peer`` has given the chunk; False when nobody wanted it (any more). Others who were asked for it still owe it."""
        chunk = self._wanted.pop(digest, None)
        if chunk is not None:
            self._waiting[chunk.queue] -= 1
            if chunk.on_time is not None:
                del self._peers[chunk.on_time].on_time[digest]
        known = self._peers.get(peer)
        if known is not None:
            self._done(known, digest)
        return chunk is not None

    def tend(self, peer: P, now: float) -> bool:
        """What ``peer`` should have given by now is open to the others; returns whether there is anything new to ask them for."""
        known = self._peers.get(peer)
        reopened = False
        while known is not None and known.on_time:
            digest, asked_at = next(iter(known.on_time.items()))
            if not known.load.is_due(asked_at, now):
                break
            del known.on_time[digest]
            self._wanted[digest].on_time = None
            self._open(digest)
            reopened = True
        return reopened

    def requests(self, peer: P, now: float = 0.0) -> list[Digest]:
        """What to ask ``peer`` for now, at most 256 chunks, noted as asked; nothing while enough is under way."""
        known = self._peers.get(peer)
        chosen: list[Digest] = []
        if known is None or not known.load.light:
            return chosen
        for number, queue in enumerate(self._queues):
            while known.at[number] < len(queue):
                digest = queue[known.at[number]]
                chunk = self._wanted.get(digest)
                if chunk is not None and chunk.on_time is None and digest not in known.asked and digest not in known.lacks:
                    if len(chosen) == AT_ONCE or not known.load.takes(chunk.size):
                        return chosen
                    self._ask(peer, known, digest, chunk, now)
                    chosen.append(digest)
                known.at[number] += 1
        return chosen

    def nobody_has(self, digests: Iterable[Digest]) -> bool:
        """Whether every peer that can be asked now has said that it lacks one and the same of these; true when there is no peer."""
        if not self._peers:
            return True
        if not all(peer.lacks for peer in self._peers.values()):
            return False
        fewest, *others = sorted((peer.lacks for peer in self._peers.values()), key=len)
        return any(digest in fewest and all(digest in lacks for lacks in others) for digest in digests)

    def _ask(self, peer: P, known: _Peer, digest: Digest, chunk: _Chunk[P], now: float) -> None:
        chunk.asked.append(peer)
        chunk.on_time = peer
        known.asked[digest] = chunk.size
        known.on_time[digest] = now
        known.load.add(chunk.size, now)

    def _open(self, digest: Digest) -> None:
        """Whoever comes to the end of the queue may be asked for it."""
        number = self._wanted[digest].queue
        queue = self._queues[number]
        queue.append(digest)
        if len(queue) > 2 * self._waiting[number] + 64:  # what is not wanted any more is left out, and all begin anew
            queue[:] = dict.fromkeys(one for one in queue if one in self._wanted)
            for peer in self._peers.values():
                peer.at[number] = 0

    def _release(self, peer: P, known: _Peer) -> None:
        for digest in list(known.asked):
            self._take_back(peer, known, digest)

    def _take_back(self, peer: P, known: _Peer, digest: Digest) -> None:
        """``peer`` is not expected to give this chunk any more."""
        chunk = self._wanted.get(digest)
        self._done(known, digest)
        if chunk is not None and peer in chunk.asked:
            chunk.asked.remove(peer)
            if chunk.on_time == peer:
                chunk.on_time = None
                self._open(digest)

    def _done(self, known: _Peer, digest: Digest) -> None:
        size = known.asked.pop(digest, None)
        known.on_time.pop(digest, None)
        if size is not None:
            known.load.done(size)

    def __len__(self) -> int:
        return len(self._wanted)
