"""The heads of a path: everybody picks the same one, and none is forgotten."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psync.engine.heads import Head, Heads, same_bytes
from p2psync.values.content import File, Gone
from p2psync.values.digest import content_digest
from tests.engine.versions import FOLDER, GONE, file, head, heads, ref

STATES = st.sampled_from([file("a"), file("b"), file("c"), file("a", True), FOLDER, GONE])
SETS = st.dictionaries(st.integers(1, 9), STATES, min_size=1, max_size=6).map(lambda d: [head(n, s) for n, s in d.items()])  # type: ignore[arg-type]

FIRST, SECOND = sorted(("a", "b"), key=lambda text: content_digest(text.encode()))


@pytest.mark.parametrize(
    ("found", "winner"),
    [
        (heads((1, "a")), 1),
        (heads((1, FIRST), (2, SECOND)), 1),
        (heads((1, SECOND), (2, FIRST)), 2),
        (heads((1, file("a", True)), (2, "a")), 2),
        (heads((1, GONE), (2, "b")), 2),
        (heads((1, "a"), (2, FOLDER)), 2),
        (heads((1, GONE), (2, "b"), (3, FOLDER)), 3),
        (heads((1, GONE), (2, GONE)), 1),
        (heads((5, "a"), (4, "a")), 4),
    ],
)
def test_a_folder_stands_before_a_file_before_a_deletion_then_the_first_content(found: Heads, winner: int) -> None:
    assert found.winner.ref == ref(winner)


def test_what_was_saved_there_knowing_of_the_others_stays_there() -> None:
    passed_over = Head(ref(1), file("a"), passed_over=True)
    assert Heads.of([passed_over, head(2, "b")]).winner.ref == ref(2)
    assert Heads.of([passed_over, head(2, "b")]).others == (passed_over,)
    assert Heads.of([passed_over, head(2, GONE)]).winner.ref == ref(1)  # nothing is no version to work on
    assert Heads.of([passed_over, head(3, SECOND), head(2, FIRST)]).winner.ref == ref(2)


@given(SETS, st.integers(0, 9))
def test_the_names_of_entries_decide_nothing(found: list[Head], turn: int) -> None:
    """They are hashes over clocks too: with other clocks the same version stands at the path, and the same ones beside it."""
    one = Heads.of(found)
    other = Heads.of([Head(ref((int.from_bytes(head.ref.record, "big") + turn) % 10), head.state) for head in found])
    assert other.winner.state == one.winner.state
    assert [same_bytes(a.state, b.state) for a, b in zip(other.others, one.others, strict=True)] == [True] * len(one.others)


def test_there_are_none_of_a_path_that_was_never_recorded() -> None:
    assert Heads().all == () and Heads().refs == frozenset()


@given(SETS, st.randoms())
def test_every_order_of_arrival_gives_the_same_heads(found: list[Head], chance) -> None:
    first = Heads.of(found)
    chance.shuffle(found)
    assert Heads.of(found) == first


def test_all_orders_of_a_few() -> None:
    few = [head(1, "a"), head(2, "b"), head(3, GONE), head(4, FOLDER)]
    assert len({Heads.of(list(order)) for order in itertools.permutations(few)}) == 1


@given(SETS)
def test_what_a_save_covers_and_what_is_shown_beside_it_is_all_there_is(found: list[Head]) -> None:
    all_of = Heads.of(found)
    shown = {other.state.content for other in all_of.others if isinstance(other.state, File)}
    for one in all_of.all:
        assert (one.ref in all_of.covered) != (isinstance(one.state, File) and one.state.content in shown)
    assert all_of.winner.ref in all_of.covered
    assert not any(same_bytes(other.state, all_of.winner.state) for other in all_of.others)


@given(SETS)
def test_further_versions_differ_from_each_other(found: list[Head]) -> None:
    others = Heads.of(found).others
    assert not any(same_bytes(a.state, b.state) for a, b in itertools.combinations(others, 2))
    assert not any(isinstance(other.state, Gone) for other in others)


def test_the_same_bytes_are_no_second_version_whatever_the_permission() -> None:
    both = heads((1, file("a", True)), (2, file("a")))
    assert both.others == ()
    assert both.covered == {ref(1), ref(2)}
    assert both.winner.state == file("a"), "whichever was recorded first"


def test_a_deletion_that_did_not_know_of_an_edit_is_no_version_of_its_own() -> None:
    both = heads((1, GONE), (2, "a"))
    assert both.winner.ref == ref(2) and both.others == () and both.covered == {ref(1), ref(2)}
