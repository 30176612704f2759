"""Chunk lists come page by page from one peer at a time, and no page is taken that cannot be one."""

from __future__ import annotations

from typing import Any

import pytest

from p2psync.engine import pages
from p2psync.engine.load import IN_FLIGHT, ITEMS, Load
from p2psync.engine.messages import LISTING_PAGE
from p2psync.engine.pages import LISTS, Pages, most_pages
from p2psync.values.content import CHUNK_MIN, MAX_SIZE, Content
from p2psync.values.digest import Digest
from p2psync.values.errors import Malformed

LARGE = 200_000_000
FULL = bytes(LISTING_PAGE)


def content(number: int, size: int = LARGE) -> Content:
    return Content(Digest(number.to_bytes(32, "big")), size, Digest(number.to_bytes(31, "big") + b"l"))


def asking(*peers: str) -> tuple[Pages[str], dict[str, Load]]:
    found: Pages[str] = Pages()
    loads = {peer: Load(window=IN_FLIGHT) for peer in peers}
    for peer, load in loads.items():
        found.add_peer(peer, load)
    return found, loads


def page(found: Pages[str], peer: str, one: Content, number: int, of: int, data: bytes = FULL) -> Any:
    return found.page(peer, one.listing, number, of, data)


def test_a_list_is_fetched_page_by_page_from_one_peer() -> None:
    found, loads = asking("marie", "luc")
    found.want(content(1))
    assert list(found.requests("marie")) == [content(1)]
    assert list(found.requests("luc")) == []
    assert page(found, "marie", content(1), 0, 2) == (content(1), 1)
    assert page(found, "marie", content(1), 1, 2, b"rest") == (content(1), FULL + b"rest")
    assert loads["marie"].items == 1
    found.drop(content(1).listing)
    assert (loads["marie"].items, loads["marie"].size) == (0, 0)


def test_pages_that_nobody_asked_for_are_passed_over() -> None:
    found, _ = asking("marie", "luc")
    assert page(found, "marie", content(1), 0, 1) is None
    found.want(content(1))
    list(found.requests("marie"))
    assert page(found, "luc", content(1), 0, 1) is None
    assert page(found, "marie", content(1), 1, 2) is None


@pytest.mark.parametrize(
    ("number", "of", "data"),
    [(0, most_pages(content(1)) + 1, FULL), (0, 2, b"short"), (0, 65535, FULL)],
    ids=["more than there can be", "a short one in the middle", "without end"],
)
def test_what_cannot_be_a_page_is_refused(number: int, of: int, data: bytes) -> None:
    found, _ = asking("marie")
    found.want(content(1))
    list(found.requests("marie"))
    with pytest.raises(Malformed):
        page(found, "marie", content(1), number, of, data)


def test_the_number_of_pages_may_not_change_on_the_way() -> None:
    found, _ = asking("marie")
    large = content(1, 10 * LARGE)
    found.want(large)
    list(found.requests("marie"))
    page(found, "marie", large, 0, 3)
    with pytest.raises(Malformed):
        page(found, "marie", large, 1, 2)


@pytest.mark.parametrize("size", [0, 1, CHUNK_MIN - 1, CHUNK_MIN, LARGE, MAX_SIZE])
def test_every_list_that_the_cuts_can_make_fits(size: int) -> None:
    chunks = max(1, -(-size // CHUNK_MIN))
    assert most_pages(content(1, size)) >= -(-min(chunks * pages.ENTRY, 64 * 1024 * 1024) // LISTING_PAGE)


def test_who_lacks_it_is_not_asked_again_until_it_has_more() -> None:
    found, loads = asking("marie", "luc")
    found.want(content(1))
    list(found.requests("marie"))
    found.lacks("marie", content(1).listing)
    assert loads["marie"].items == 0
    assert list(found.requests("marie")) == []
    assert not found.nobody_has(content(1).listing)
    assert list(found.requests("luc")) == [content(1)]
    found.lacks("luc", content(1).listing)
    assert found.nobody_has(content(1).listing)
    assert found.has_more("marie") == 1 and found.has_more("marie") == 0
    assert list(found.requests("marie")) == [content(1)]


@pytest.mark.parametrize("how", ["gave_up", "remove_peer"])
def test_what_a_peer_owed_is_asked_of_another_from_the_beginning(how: str) -> None:
    found, loads = asking("marie", "luc")
    found.want(content(1))
    list(found.requests("marie"))
    page(found, "marie", content(1), 0, 2)
    getattr(found, how)("marie")
    assert (loads["marie"].items, loads["marie"].size) == (0, 0)
    assert list(found.requests("luc")) == [content(1)]
    assert page(found, "luc", content(1), 0, 2) == (content(1), 1)
    assert page(found, "marie", content(1), 1, 2) is None


def test_a_peer_is_asked_for_a_few_at_a_time() -> None:
    found, loads = asking("marie")
    for number in range(3 * LISTS):
        found.want(content(number))
    first = list(found.requests("marie"))
    assert len(first) == LISTS and list(found.requests("marie")) == []
    found.drop(first[0].listing)
    assert len(list(found.requests("marie"))) == 1
    loads["marie"].items = ITEMS + 1
    found.drop(first[1].listing)
    assert list(found.requests("marie")) == []


def test_a_peer_that_rests_is_left_alone() -> None:
    found, loads = asking("marie")
    found.want(content(1))
    loads["marie"].resting = True
    assert list(found.requests("marie")) == []


def test_of_a_silent_one_the_list_is_asked_of_another_if_there_is_one() -> None:
    found, loads = asking("marie")
    found.want(content(1))
    list(found.requests("marie", 0.0))
    assert loads["marie"].judge(5.0) and not found.tend("marie"), "there is nobody else"
    found.add_peer("luc", Load())
    assert found.tend("marie") and not found.nobody_has(content(1).listing)
    assert list(found.requests("marie", 5.0)) == []
    assert list(found.requests("luc", 5.0)) == [content(1)]
    assert page(found, "marie", content(1), 0, 1) is None
    found.lacks("luc", content(1).listing)
    assert list(found.requests("marie", 6.0)) == []
    loads["marie"].heard(7.0)
    found.answers("marie")
    assert list(found.requests("marie", 7.0)) == [content(1)]
