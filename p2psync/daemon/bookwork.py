"""Blocking work on the books of one mandate, out of the way of everything else."""

from collections.abc import Callable
from typing import TypeVar

import trio

from p2psync.store.books import Books

T = TypeVar("T")


async def in_thread(books: Books, work: Callable[[], T]) -> T:
    """Do something that blocks, in a thread that reads what was committed and nothing older. Raises: whatever ``work`` raises."""

    def reading() -> T:
        with books.ledger.reading():
            return work()

    return await trio.to_thread.run_sync(reading)
