"""Getting a content out of the history of other members: what is asked for again goes into the vault, like any small version.

It is no part of what this disk owes the journal, so that nobody counts as behind for it, and it stays in the vault for as long as somebody
may be reading it, whatever the policy says.
"""

from functools import partial
from typing import TYPE_CHECKING

import trio

from p2psync.store import listings, space
from p2psync.store.jobs import Want
from p2psync.values.content import Content
from p2psync.values.names import RelPath

if TYPE_CHECKING:
    from p2psync.daemon.mandate import Mandate

READING_S = 3600.0
"""So long what was recalled is kept at least."""
ASKED_S = 10.0
"""So long the members that are online are given to say that they lack it, or to begin sending."""
PIECE_S = 0.25


async def recall(mandate: "Mandate", content: Content, *, vaulted: bool = False) -> bool:
    """Have all of ``content`` on this machine, or even in its vault; False when no machine that is online has what is missing.

    Raises:
        SpaceShort, DiskFull, CannotWrite, DiskFailing.
    """
    mandate.recalled[content.digest] = trio.current_time() + READING_S
    path = RelPath(f"{content.digest.hex()}.recalled")
    quiet_since, lacked = trio.current_time(), -1
    try:
        while True:
            want = await mandate.in_thread(partial(_lacking, mandate, content, vaulted))
            if want is None:
                return True
            if not mandate.conversations:
                return False
            left = sum(chunk.size for chunk in want.chunks)
            if left != lacked:
                quiet_since, lacked = trio.current_time(), left
            elif trio.current_time() - quiet_since > ASKED_S:
                return False
            mandate.fetcher.recall(path, want)
            if not await _come(mandate, path):
                return False
    finally:
        mandate.fetcher.update({path}, {})


async def _come(mandate: "Mandate", path: RelPath) -> bool:
    """Wait until what is wanted for ``path`` has come, or its list has; False when nobody has it."""
    lacked, since = mandate.fetcher.left(path.text), trio.current_time()
    while mandate.fetcher.wants(path.text):
        await trio.sleep(PIECE_S)
        left = mandate.fetcher.left(path.text)
        if left != lacked:
            lacked, since = left, trio.current_time()
        if trio.current_time() - since > ASKED_S or mandate.fetcher.nobody_has(path.text):
            return not mandate.fetcher.wants(path.text)
    return True


def _lacking(mandate: "Mandate", content: Content, vaulted: bool) -> Want | None:
    """What of a content is not on this machine; what only files have is copied, so that nothing changes while it is read."""
    books = mandate.books
    listing = listings.get(books.ledger.read(), content)
    if listing is None:
        space.of(books.state).check(books.state, content.size)
        return Want(content, None)
    if not vaulted and mandate.sources.complete(content):
        return None
    missing = mandate.sources.gather(listing)
    if not missing:
        return None
    space.of(books.state).check(books.state, sum(chunk.size for chunk in missing))
    mandate.arrivals.expect_small(missing)
    return Want(content, listing, tuple(missing))
