"""Which chunks are wanted, and who is asked for which: bounded for each link, small files first, nobody asked twice for what they lack.

Somebody is asked first for what they *say* they have, then for what nobody says so of and they *may* have; and only when nothing else is
left to ask them for, for what others say they have. So members that fetch the same at once feed each other, and the one who had it first
gives each chunk about once. How much is asked of somebody on the mere chance follows from what came of it: one more for each chunk that
they gave, half as many for each that they lacked. Who has used up their ``trust`` is asked for what no trusted one can be asked for.

New requests are made when half of what may be under way on a link (engine/load) has come back, so that they are few and large.

What was asked of one that falls silent, or is slow, is *late* there after a moment: it is open again to the others, once nothing else is
left to ask for. The first answer counts, whoever gives it. So a chunk is under way at one machine that is on time, at most, and what
travels twice is at most what the late ones owe; that counts as under way until they have given it.

All times are seconds of one clock.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import Generic, TypeVar

from p2psync.engine.load import ITEMS, Load
from p2psync.values.digest import Digest

AT_ONCE = 256
"""Chunks in one request."""
SMALL = 1024 * 1024
"""Files up to this size go before larger ones."""
PATIENCE_S = 1.0
"""Seconds after which what somebody says to have is asked of another, if there was no room to ask the one who said so."""
TRUST = 2
"""Chunks that somebody of whom nothing is known is asked for on the chance that they have them."""

P = TypeVar("P", bound=Hashable)


@dataclass
class _Chunk(Generic[P]):
    """A chunk that is wanted: everybody who was asked for it, the one of them who is on time, if there is one, and how many say that
    they have it and are not asked yet.
    """

    size: int
    queue: int
    asked: list[P] = field(default_factory=list)
    on_time: P | None = None
    said: int = 0


@dataclass
class _Peer(Generic[P]):
    """``at`` is how far each queue has been gone through for this peer: whatever it could be asked for now comes after that, as long as
    those ``beside`` it are trusted and it is not (None: it is trusted itself). ``says`` is what it says to have, for each queue, and since
    when; after it was late it is ``believed`` no more than so many at a time. ``guesses`` are under way on the mere chance.
    """

    load: Load
    trust: int = TRUST
    at: list[int] = field(default_factory=lambda: [0, 0])
    beside: tuple[P, ...] | None = None
    asked: dict[Digest, int] = field(default_factory=dict)
    on_time: OrderedDict[Digest, float] = field(default_factory=OrderedDict)
    guesses: set[Digest] = field(default_factory=set)
    says: tuple[dict[Digest, float], dict[Digest, float]] = field(default_factory=lambda: ({}, {}))
    believed: int | None = None
    lacks: set[Digest] = field(default_factory=set)

    @property
    def trusted(self) -> bool:
        """Whether it is likely to have what nobody says to have, and answers."""
        return self.trust > 0 and self.load.answers


class Transfer(Generic[P]):
    """The chunks that one mandate wants from its peers. Members that want the same have different ``place``s, from 0 to below 1: what
    becomes open to all of them at once each begins elsewhere.
    """

    def __init__(self) -> None:
        self.place = 0.0
        self._wanted: dict[Digest, _Chunk[P]] = {}
        self._queues: tuple[list[Digest], list[Digest]] = ([], [])
        self._waiting = [0, 0]
        self._peers: dict[P, _Peer[P]] = {}

    # ---- what is wanted

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
            chunk = self._forget(digest)
            for peer in chunk.asked if chunk is not None else ():
                self._done(self._peers[peer], digest)

    def wanted(self, digest: Digest) -> bool:
        """Whether this chunk is still wanted."""
        return digest in self._wanted

    def _forget(self, digest: Digest) -> _Chunk[P] | None:
        chunk = self._wanted.pop(digest, None)
        if chunk is not None:
            self._waiting[chunk.queue] -= 1
            for known in self._peers.values() if chunk.said else ():
                known.says[chunk.queue].pop(digest, None)
        return chunk

    # ---- who may have it

    def add_peer(self, peer: P, load: Load) -> None:
        """``peer`` can be asked from now on, over a link with this load."""
        self._peers.setdefault(peer, _Peer(load))

    def remove_peer(self, peer: P) -> None:
        """``peer`` is gone; what was asked of it is open again."""
        known = self._peers.get(peer)
        if known is not None:
            self._let_go(peer, known)
            del self._peers[peer]

    def trust(self, peer: P, *, fully: bool) -> None:
        """``peer`` has all that is wanted now, as far as is known (``fully``), or may have some of it."""
        known = self._peers.get(peer)
        if known is not None:
            known.trust = ITEMS if fully else max(known.trust, TRUST)

    def says(self, peer: P, digests: Iterable[Digest], now: float = 0.0) -> None:
        """``peer`` says that it has these chunks; while it owes others and gives nothing, that is worth nothing, and later not much."""
        known = self._peers.get(peer)
        if known is None or not known.load.answers:
            return
        for digest in digests:
            if known.believed is not None and sum(map(len, known.says)) >= known.believed:
                return
            chunk = self._wanted.get(digest)
            if chunk is not None and digest not in known.asked and digest not in known.says[chunk.queue]:
                known.says[chunk.queue][digest] = now
                known.lacks.discard(digest)
                chunk.said += 1

    def lacks(self, peer: P, digest: Digest) -> None:
        """``peer`` says that it does not have the chunk."""
        known = self._peers.get(peer)
        if known is not None:
            chunk = self._wanted.get(digest)
            if chunk is not None:
                known.lacks.add(digest)
                if known.says[chunk.queue].pop(digest, None) is not None:
                    chunk.said -= 1
                    self._open(digest)
            if digest in known.guesses:
                known.trust //= 2
            self._take_back(peer, known, digest)

    def gave_up(self, peer: P) -> None:
        """``peer`` did not answer: as if it lacked all that it was asked for."""
        known = self._peers.get(peer)
        if known is not None:
            known.lacks.update(digest for digest in known.asked if digest in self._wanted)
            self._let_go(peer, known)

    def has_more(self, peer: P) -> int:
        """``peer`` has got something new: what it lacked may be asked of it again; how much that is."""
        known = self._peers.get(peer)
        lacked = len(known.lacks) if known else 0
        if known is not None and lacked:
            known.lacks.clear()
            known.at = [0, 0]
        return lacked

    def nobody_has(self, digests: Iterable[Digest]) -> bool:
        """Whether every peer that can be asked now has said that it lacks one and the same of these; true when there is no peer."""
        if not self._peers:
            return True
        if not all(peer.lacks for peer in self._peers.values()):
            return False
        fewest, *others = sorted((peer.lacks for peer in self._peers.values()), key=len)
        return any(digest in fewest and all(digest in lacks for lacks in others) for digest in digests)

    # ---- what comes, and what does not

    def arrived(self, peer: P, digest: Digest) -> bool:
        """``peer`` has given the chunk; False when nobody wanted it (any more). Others who were asked for it still owe it."""
        chunk = self._forget(digest)
        if chunk is not None and chunk.on_time is not None:
            del self._peers[chunk.on_time].on_time[digest]
        known = self._peers.get(peer)
        if known is not None:
            if digest in known.guesses:
                known.trust = min(known.trust + 1, ITEMS)
            if known.believed is not None:
                known.believed += 1
            self._done(known, digest)
        return chunk is not None

    def tend(self, peer: P, now: float) -> bool:
        """What ``peer`` should have given by now is open to the others; returns whether there is anything to ask them for."""
        known = self._peers.get(peer)
        if known is None:
            return False
        late = list(takewhile(lambda one: known.load.is_due(known.on_time[one], now), known.on_time))
        for digest in late:
            del known.on_time[digest]
            self._wanted[digest].on_time = None
        if not known.load.answers:
            known.believed = TRUST
            late += self._forget_word(known)
        for digest in self._from_our_place(late):
            self._open(digest)
        return bool(late) or any(now - said_at >= PATIENCE_S for says in known.says for said_at in islice(says.values(), 1))

    # ---- who is asked for what

    def requests(self, peer: P, now: float = 0.0) -> list[Digest]:
        """What to ask ``peer`` for now, at most 256 chunks, noted as asked; nothing while enough is under way."""
        known = self._peers.get(peer)
        chosen: list[Digest] = []
        if known is None or not known.load.light:
            return chosen
        self._look_beside(known)
        for number in (0, 1):
            if not (self._ask_said(peer, known, number, now, chosen) and self._ask_on_chance(peer, known, number, now, chosen)):
                return chosen
        if not chosen and known.trusted:
            self._ask_instead(peer, known, now, chosen)
        return chosen

    def _ask_said(self, peer: P, known: _Peer[P], number: int, now: float, chosen: list[Digest]) -> bool:
        """Ask it for what it says it has; whether there is room left."""
        says = known.says[number]
        while says:
            digest = next(iter(says))
            chunk = self._wanted[digest]
            if chunk.on_time is None and digest not in known.asked and not self._has_room(known, chunk, chosen):
                return False
            del says[digest]
            chunk.said -= 1
            if chunk.on_time is None and digest not in known.asked:
                self._ask(peer, known, digest, chunk, now)
                chosen.append(digest)
        return True

    def _ask_on_chance(self, peer: P, known: _Peer[P], number: int, now: float, chosen: list[Digest]) -> bool:
        """Ask it for what nobody says to have, as far as it is trusted; whether there is room left."""
        queue = self._queues[number]
        if not all(self._peers[other].lacks for other in known.beside or ()):
            return True  # one of those beside it lacks nothing
        while known.at[number] < len(queue):
            digest = queue[known.at[number]]
            chunk = self._wanted.get(digest)
            if chunk is not None and not chunk.said and self._may_ask(known, digest, chunk):
                if len(known.guesses) >= (known.trust or TRUST):
                    return True
                if not self._has_room(known, chunk, chosen):
                    return False
                known.guesses.add(digest)
                self._ask(peer, known, digest, chunk, now)
                chosen.append(digest)
            known.at[number] += 1
        return True

    def _may_ask(self, known: _Peer[P], digest: Digest, chunk: _Chunk[P]) -> bool:
        if chunk.on_time is not None or digest in known.asked or digest in known.lacks:
            return False
        return known.beside is None or all(digest in self._peers[other].lacks for other in known.beside)

    def _ask_instead(self, peer: P, known: _Peer[P], now: float, chosen: list[Digest]) -> None:
        """Ask it for what others have said for a while that they have, without there having been room to ask them."""
        for says in [says for other in self._peers.values() if other is not known for says in other.says]:
            for digest in self._from_our_place([one for one, said_at in says.items() if now - said_at >= PATIENCE_S]):
                chunk = self._wanted[digest]
                if not self._may_ask(known, digest, chunk):
                    continue
                if len(known.guesses) >= known.trust or not self._has_room(known, chunk, chosen):
                    return
                del says[digest]
                chunk.said -= 1
                known.guesses.add(digest)
                self._ask(peer, known, digest, chunk, now)
                chosen.append(digest)

    def _from_our_place(self, digests: list[Digest]) -> list[Digest]:
        """In their order, from our place on: so that several members do not all ask for the same."""
        start = int(self.place * len(digests))
        return digests[start:] + digests[:start]

    def _has_room(self, known: _Peer[P], chunk: _Chunk[P], chosen: list[Digest]) -> bool:
        return len(chosen) < AT_ONCE and known.load.takes(chunk.size)

    def _ask(self, peer: P, known: _Peer[P], digest: Digest, chunk: _Chunk[P], now: float) -> None:
        chunk.asked.append(peer)
        chunk.on_time = peer
        known.asked[digest] = chunk.size
        known.on_time[digest] = now
        known.load.add(chunk.size, now)

    def _look_beside(self, known: _Peer[P]) -> None:
        """One that is not trusted is asked for what those that are lack; when these are others, it is gone through the queues anew."""
        beside = None if known.trusted else tuple(other for other, one in self._peers.items() if one.trusted)
        if beside != known.beside:
            known.beside, known.at = beside, [0, 0]

    # ---- keeping it in order

    def _open(self, digest: Digest) -> None:
        """Whoever comes to the end of the queue may be asked for it."""
        number = self._wanted[digest].queue
        queue = self._queues[number]
        queue.append(digest)
        if len(queue) > 2 * self._waiting[number] + 64:  # what is not wanted any more is left out, and all begin anew
            queue[:] = dict.fromkeys(one for one in queue if one in self._wanted)
            for peer in self._peers.values():
                peer.at[number] = 0

    def _forget_word(self, known: _Peer[P]) -> list[Digest]:
        """What it says to have counts no more; what others may be asked for now."""
        said = [digest for says in known.says for digest in says]
        for digest in said:
            self._wanted[digest].said -= 1
        for says in known.says:
            says.clear()
        return [digest for digest in said if not self._wanted[digest].said and self._wanted[digest].on_time is None]

    def _let_go(self, peer: P, known: _Peer[P]) -> None:
        """What was asked of it, and what it says to have, is open to the others."""
        for digest in list(known.asked):
            self._take_back(peer, known, digest)
        for digest in self._from_our_place(self._forget_word(known)):
            self._open(digest)

    def _take_back(self, peer: P, known: _Peer[P], digest: Digest) -> None:
        """``peer`` is not expected to give this chunk any more."""
        chunk = self._wanted.get(digest)
        self._done(known, digest)
        if chunk is not None and peer in chunk.asked:
            chunk.asked.remove(peer)
            if chunk.on_time == peer:
                chunk.on_time = None
            if chunk.on_time is None:  # one that is not trusted may be asked for it, even where it was late
                self._open(digest)

    def _done(self, known: _Peer[P], digest: Digest) -> None:
        size = known.asked.pop(digest, None)
        known.on_time.pop(digest, None)
        known.guesses.discard(digest)
        if size is not None:
            known.load.done(size)

    def __len__(self) -> int:
        return len(self._wanted)
