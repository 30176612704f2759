"""Content is asked first of the peer who told of it: others may lack it, or be gone without anybody having noticed yet."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from p2psync.daemon.fetcher import Fetcher
from p2psync.engine.load import Load
from p2psync.store.jobs import Want
from p2psync.values.content import Chunk, Content, Listing
from p2psync.values.digest import Digest, content_digest
from p2psync.values.names import DeviceId, RelPath


class Peer:
    """Remembers what it is asked for, and answers nothing."""

    def __init__(self) -> None:
        self.peer = SimpleNamespace(turns=SimpleNamespace(load=Load(), wait=lambda conversation: None, owing=lambda: None))
        self.asked: list[Digest] = []
        self.device, self.holds_all = DeviceId(bytes(32)), False

    def ask_chunks(self, ids: list[Digest]) -> None:
        self.asked += ids


async def test_the_one_who_told_of_a_version_is_asked_for_it() -> None:
    fetcher = Fetcher(DeviceId(bytes(32)), *[lambda *_: None] * 4)  # type: ignore[arg-type]
    silent: Any = Peer()
    teller: Any = Peer()
    for peer in (silent, teller):
        fetcher.join(peer)
    digest = content_digest(b"books")
    content = Content(digest, 5, digest)
    fetcher.prefer(teller)
    fetcher.update(set(), {RelPath("journal.csv"): Want(content, Listing.single(content), (Chunk(digest, 0, 5),))})
    assert (silent.asked, teller.asked) == ([], [digest])
