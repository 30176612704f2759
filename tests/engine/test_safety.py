"""When absence must wait for a person."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psync.engine.safety import must_halt


@pytest.mark.parametrize(
    ("vanished", "known", "halts"),
    [
        (0, 0, False),
        (0, 100, False),
        (1, 1, False),  # the only file of a folder may be deleted
        (2, 2, True),  # all of several
        (3, 4, False),
        (10, 11, False),  # not more than 10
        (11, 12, True),
        (11, 54, True),  # more than a fifth
        (11, 55, False),  # exactly a fifth
        (200, 1000, False),
        (201, 1000, True),
    ],
)
def test_many_at_once_or_all_of_several(vanished: int, known: int, halts: bool) -> None:
    assert must_halt(vanished, known, root_changed=False) is halts


@given(st.integers(1, 100), st.integers(0, 100))
def test_anything_missing_in_another_folder_halts(vanished: int, more: int) -> None:
    assert must_halt(vanished, vanished + more, root_changed=True)


@pytest.mark.parametrize(
    ("vanished", "recent", "known", "halts"), [(1, 10, 40, True), (1, 9, 40, False), (1, 10, 60, False), (0, 50, 60, False)]
)
def test_what_vanished_shortly_before_counts_as_well(vanished: int, recent: int, known: int, halts: bool) -> None:
    assert must_halt(vanished, known, recent, root_changed=False) is halts


def test_another_folder_in_which_nothing_is_missing_does_not() -> None:
    assert not must_halt(0, 10, root_changed=True)


@given(st.integers(1, 300), st.integers(0, 300))
def test_more_missing_never_needs_a_person_less(vanished: int, left: int) -> None:
    if vanished > 1 and must_halt(vanished, vanished + left, root_changed=False) and left:
        assert must_halt(vanished + 1, vanished + left, root_changed=False)
