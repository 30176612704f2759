"""Several members that want the same at once feed each other: it leaves the one who had it first about once, and nobody is held up."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from p2psync.engine.shares import RUN, in_turn
from tests.engine.feeding import CHUNK, Office, digest

CHUNKS = [digest(number) for number in range(700)]
RATE = 25e6
ONCE_S = len(CHUNKS) * CHUNK / RATE


def office(receivers: int, **rates: float | None) -> Office:
    """One who has everything, and so many who want it; all send at ``RATE`` but those in ``rates``."""
    found = Office()
    found.member("a", rates.pop("a", RATE), set(CHUNKS), whole=True)
    for name in "bcdefghijklmnopqrstuvwxyz"[:receivers]:
        found.member(name, rates.pop(name, RATE))
    return found


def test_one_that_is_alone_has_it_in_its_order_and_as_fast_as_it_is_given() -> None:
    alone = office(1)
    assert alone.run(CHUNKS, 60) < 1.05 * ONCE_S
    assert alone.members["a"].given == len(CHUNKS)
    assert in_turn(CHUNKS, 0, 1, b"") == CHUNKS


@pytest.mark.parametrize("receivers", [2, 7, 12])
def test_it_leaves_the_one_who_had_it_about_once_however_many_want_it(receivers: int) -> None:
    many = office(receivers)
    assert many.run(CHUNKS, 60) < 1.3 * ONCE_S
    assert many.members["a"].given < 1.3 * len(CHUNKS)
    assert sum(member.given for member in many.members.values()) < 1.02 * receivers * len(CHUNKS), "hardly anything travels twice"


def test_one_with_a_slow_uplink_is_helped_by_all_that_are_fast() -> None:
    slow = office(4, a=RATE / 20)
    took = slow.run(CHUNKS, 100)
    assert took < 1.1 * 20 * ONCE_S
    assert slow.members["a"].given < 1.05 * len(CHUNKS)


@pytest.mark.parametrize("rate", [None, RATE / 250, RATE / 20], ids=["never gives anything", "gives very little", "gives little"])
def test_one_that_does_not_give_what_it_says_to_have_holds_up_nobody(rate: float | None) -> None:
    held_up = office(6, d=rate)
    assert held_up.run(CHUNKS, 60) < ONCE_S + 4
    assert held_up.members["a"].given < 2 * len(CHUNKS)


def test_when_nobody_has_a_fast_link_the_first_owner_goes_on_helping() -> None:
    weak = office(5, **dict.fromkeys("bcdef", RATE / 10))
    all_together = RATE + 5 * RATE / 10
    assert weak.run(CHUNKS, 60) < 1.25 * 5 * len(CHUNKS) * CHUNK / all_together


def test_everybody_begins_with_another_share_and_asks_for_everything() -> None:
    orders = [in_turn(CHUNKS, place, 7, bytes([place])) for place in range(7)]
    assert all(sorted(order) == CHUNKS for order in orders)
    shares = Counter(one for order in orders for one in order[: len(CHUNKS) // 7])
    assert set(shares.values()) == {1} and len(shares) == len(CHUNKS)
    assert len({tuple(order[len(CHUNKS) // 7 :][:8]) for order in orders}) > 4, "and goes on elsewhere than the others"


def test_what_was_asked_for_lies_together_on_the_disk() -> None:
    many = range(8 * 7 * RUN)
    order = in_turn(many, 3, 7, b"d")
    jumps = sum(after != before + 1 for before, after in pairwise(order))
    assert jumps <= len(many) / RUN + 3
