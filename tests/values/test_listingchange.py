"""What has changed in a chunk list gives the list back, and is not said when it would be no shorter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psync.values.content import Chunk, Listing
from p2psync.values.digest import Digest
from p2psync.values.errors import Malformed
from p2psync.values.listingchange import MOST, ListingChange

NUMBERS = st.lists(st.integers(0, 3), max_size=40)


def listing(numbers: list[int]) -> Listing:
    return Listing.of([Chunk(Digest(number.to_bytes(32, "big")), 0, 20_000 + number) for number in numbers])


@given(NUMBERS, NUMBERS, NUMBERS, NUMBERS)
def test_the_change_gives_the_list_back(begin: list[int], gone: list[int], new: list[int], end: list[int]) -> None:
    old, changed = listing(begin + gone + end), listing(begin + new + end)
    change = ListingChange.of(changed, old)
    if change is None:
        assert len(new) * 2 > len(changed)
    else:
        assert change.applied(old) == changed
        assert len(change.between) <= len(listing(new).packed)


def test_a_change_in_the_middle_of_many_is_one_entry() -> None:
    numbers = list(range(16_000))
    old, new = listing(numbers), listing([*numbers[:9000], 77_777, *numbers[9001:]])
    change = ListingChange.of(new, old)
    assert change is not None
    assert (change.before, change.after, len(change.between)) == (9000, 6999, 36)


def test_what_is_no_shorter_or_too_long_is_not_said() -> None:
    assert ListingChange.of(listing([1, 2, 3]), listing([])) is None
    assert ListingChange.of(listing([1, 2, 3]), listing([4, 5])) is None
    many = list(range(MOST // 36 + 1))
    assert ListingChange.of(listing([*many, *[0] * 9000]), listing([0] * 9000)) is None


def test_more_than_there_is_is_refused() -> None:
    old = listing([1, 2, 3])
    for before, after in ((4, 0), (0, 4), (2, 2), (2**32 - 1, 2**32 - 1)):
        with pytest.raises(Malformed):
            ListingChange(old.digest, before, after, b"").applied(old)
