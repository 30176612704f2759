"""Chunks that have arrived and are not written down yet: bounded, and handed out in batches that are worth a write."""

from collections.abc import Callable

import trio

from p2psync.values.digest import Digest

BUFFER = 2 * 1024 * 1024
"""Bytes that may have arrived and not be written; then the links wait. So much is sent again after a kill."""
_BATCH = 1024 * 1024
"""Bytes that are worth a write of their own."""
_GATHER_S = 0.005
"""So long may what has arrived wait for what is on its way, to be written with it."""


class Inbox:
    """What one mandate has received. Many links put in; one task takes out."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Digest, bytes]] = []
        self._in_hand: set[Digest] = set()
        self._size = 0
        self._arrived = trio.Event()
        self._room = trio.Event()

    def __contains__(self, digest: Digest) -> bool:
        """Whether this chunk is here, and be it that it is being written."""
        return digest in self._in_hand

    def put(self, digest: Digest, data: bytes) -> None:
        """A chunk has arrived."""
        self._waiting.append((digest, data))
        self._in_hand.add(digest)
        self._size += len(data)
        self._arrived.set()

    @property
    def full(self) -> bool:
        """Whether more is here than may be."""
        return self._size > BUFFER

    async def room(self) -> None:
        """Wait until there is room again."""
        while self.full:
            await self._room.wait()

    async def batch(self, comes: Callable[[], object]) -> list[tuple[Digest, bytes]]:
        """What is to be written next; waits for it, and a moment longer for what else ``comes``, if anything does. For one task."""
        while True:
            await self._arrived.wait()
            if self._size < _BATCH and comes():
                await trio.sleep(_GATHER_S)
            self._arrived = trio.Event()
            batch, self._waiting = self._waiting, []
            if batch:
                return batch

    def written(self, batch: list[tuple[Digest, bytes]]) -> None:
        """These are written, or cannot be: every link that waits goes on."""
        self._in_hand.difference_update(digest for digest, _ in batch)
        self._size -= sum(len(data) for _, data in batch)
        self._wake()

    def clear(self) -> None:
        """Let go of everything."""
        self._waiting, self._in_hand, self._size = [], set(), 0
        self._wake()

    def _wake(self) -> None:
        self._room.set()
        self._room = trio.Event()
