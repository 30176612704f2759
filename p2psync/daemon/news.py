"""News for those who watch: which mandates may look different now. A slow reader misses nothing, and costs one place for each mandate."""

from collections.abc import Iterator
from contextlib import contextmanager

import trio

from p2psync.values.names import MandateId


class Reader:
    """Who watches. What happens several times before it is read is read once."""

    def __init__(self) -> None:
        self._news: dict[MandateId | None, None] = {}
        self._arrived = trio.Event()

    def tell(self, mandate: MandateId | None) -> None:
        """This mandate, or (None) something of the whole, may look different."""
        self._news[mandate] = None
        self._arrived.set()

    async def next(self) -> MandateId | None:
        """What may look different; waits until there is something."""
        while not self._news:
            self._arrived = trio.Event()
            await self._arrived.wait()
        mandate = next(iter(self._news))
        del self._news[mandate]
        return mandate


class News:
    """Tells all readers."""

    def __init__(self) -> None:
        self._readers: set[Reader] = set()

    def tell(self, mandate: MandateId | None) -> None:
        """This mandate, or (None) something of the whole, may look different."""
        for reader in self._readers:
            reader.tell(mandate)

    @contextmanager
    def reading(self) -> Iterator[Reader]:
        """A reader of what happens within the block."""
        reader = Reader()
        self._readers.add(reader)
        try:
            yield reader
        finally:
            self._readers.discard(reader)
