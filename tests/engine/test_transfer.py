"""Who is asked for which chunk: bounded, fair to small files, and nobody twice for the same."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from p2psync.engine.transfer import AT_ONCE, IN_FLIGHT, ITEMS, SMALL, Load, Transfer
from p2psync.values.content import CHUNK_MAX
from p2psync.values.digest import Digest


def digest(number: int) -> Digest:
    return Digest(number.to_bytes(32, "big"))


def chunks(*numbers: int, size: int = 1000) -> list[tuple[Digest, int]]:
    return [(digest(number), size) for number in numbers]


@pytest.fixture
def transfer() -> Transfer[str]:
    found: Transfer[str] = Transfer()
    found.add_peer("marie", Load())
    return found


def test_what_is_wanted_is_asked_for_once(transfer: Transfer[str]) -> None:
    transfer.want(chunks(1, 2), of=2000)
    assert transfer.requests("marie") == [digest(1), digest(2)]
    assert transfer.requests("marie") == []
    transfer.add_peer("luc", Load())
    assert transfer.requests("luc") == []


def test_wanting_again_changes_nothing(transfer: Transfer[str]) -> None:
    transfer.want(chunks(1, 2), of=2000)
    transfer.requests("marie")
    transfer.want(chunks(1, 2), of=SMALL + 1)
    assert transfer.requests("marie") == []
    assert len(transfer) == 2


def test_an_unknown_peer_is_asked_for_nothing(transfer: Transfer[str]) -> None:
    transfer.want(chunks(1), of=1000)
    assert transfer.requests("luc") == []


def test_small_files_go_before_large_ones_and_each_in_its_order(transfer: Transfer[str]) -> None:
    transfer.want(chunks(1, 2), of=SMALL + 1)
    transfer.want(chunks(4, 3), of=SMALL)
    assert transfer.requests("marie") == [digest(n) for n in (4, 3, 1, 2)]


def test_one_request_names_at_most_so_many_chunks(transfer: Transfer[str]) -> None:
    transfer.want(chunks(*range(2000), size=1), of=2000)
    asked = [transfer.requests("marie") for _ in range(4)]
    assert [len(request) for request in asked] == [AT_ONCE, AT_ONCE, AT_ONCE, 0]  # more than half of what may be under way is


def test_at_most_so_many_bytes_are_under_way(transfer: Transfer[str]) -> None:
    transfer.want(chunks(*range(500), size=CHUNK_MAX), of=500 * CHUNK_MAX)
    first = transfer.requests("marie")
    assert len(first) == IN_FLIGHT // CHUNK_MAX
    assert transfer.requests("marie") == []
    for one in first[: len(first) // 2]:
        transfer.arrived(one)
    assert len(transfer.requests("marie")) == len(first) // 2


def test_what_is_under_way_is_counted_for_the_link_over_all_mandates() -> None:
    one: Transfer[str] = Transfer()
    other: Transfer[str] = Transfer()
    link = Load()
    for transfer in (one, other):
        transfer.add_peer("marie", link)
        transfer.want(chunks(*range(100), size=CHUNK_MAX), of=100 * CHUNK_MAX)
    assert len(one.requests("marie")) == IN_FLIGHT // CHUNK_MAX
    assert other.requests("marie") == []
    one.remove_peer("marie")
    assert len(other.requests("marie")) == IN_FLIGHT // CHUNK_MAX


def test_what_a_peer_lacks_is_asked_of_another_and_never_of_it_again(transfer: Transfer[str]) -> None:
    transfer.want(chunks(1), of=1000)
    transfer.requests("marie")
    transfer.lacks("marie", digest(1))
    assert transfer.requests("marie") == []
    assert transfer.nobody_has([digest(1)])
    transfer.add_peer("luc", Load())
    assert not transfer.nobody_has([digest(1)])
    assert transfer.requests("luc") == [digest(1)]


def test_a_peer_that_got_something_new_may_be_asked_again(transfer: Transfer[str]) -> None:
    transfer.want(chunks(1), of=1000)
    transfer.requests("marie")
    transfer.lacks("marie", digest(1))
    assert transfer.has_more("marie") == 1
    assert transfer.requests("marie") == [digest(1)]
    assert transfer.has_more("nobody") == 0


def test_what_was_asked_of_a_peer_that_leaves_is_asked_elsewhere(transfer: Transfer[str]) -> None:
    transfer.add_peer("luc", Load())
    transfer.want(chunks(1, 2), of=2000)
    transfer.requests("marie")
    transfer.remove_peer("marie")
    assert transfer.requests("luc") == [digest(1), digest(2)]
    assert transfer.requests("marie") == []


def test_a_peer_that_does_not_answer_is_asked_for_something_else(transfer: Transfer[str]) -> None:
    transfer.add_peer("luc", Load())
    transfer.want(chunks(1), of=1000)
    transfer.requests("marie")
    transfer.gave_up("marie")
    assert transfer.requests("marie") == []
    assert transfer.requests("luc") == [digest(1)]


def test_a_resting_link_is_asked_for_nothing(transfer: Transfer[str]) -> None:
    link = Load(resting=True)
    transfer.add_peer("luc", link)
    transfer.want(chunks(1), of=1000)
    assert transfer.requests("luc") == []
    link.resting = False
    assert transfer.requests("luc") == [digest(1)]


def test_only_what_is_wanted_arrives_and_only_once(transfer: Transfer[str]) -> None:
    transfer.want(chunks(1), of=1000)
    assert transfer.arrived(digest(1)) and not transfer.arrived(digest(1)) and not transfer.arrived(digest(9))
    assert len(transfer) == 0 and not transfer.wanted(digest(1))


def test_dropping_makes_room(transfer: Transfer[str]) -> None:
    transfer.want(chunks(*range(200), size=CHUNK_MAX), of=200 * CHUNK_MAX)
    first = transfer.requests("marie")
    transfer.drop(first)
    assert len(transfer.requests("marie")) == len(first)


def test_nobody_has_anything_when_there_is_nobody() -> None:
    assert Transfer[str]().nobody_has([digest(1)])


NUMBERS = st.integers(0, 40)
PEERS = st.sampled_from(["marie", "luc", "anna"])
SIZES = {number: 1 + number * 7919 % CHUNK_MAX for number in range(41)}


class Fetching(RuleBasedStateMachine):
    """Whatever is wanted, lacked, dropped and whoever comes and goes: never two asked for one chunk, and the load is what is under way."""

    def __init__(self) -> None:
        super().__init__()
        self.transfer: Transfer[str] = Transfer()
        self.loads: dict[str, Load] = {}
        self.wanted: set[int] = set()
        self.asked: dict[int, str] = {}
        self.lacking: set[tuple[str, int]] = set()

    @rule(numbers=st.lists(NUMBERS, max_size=10), of=st.sampled_from([1000, SMALL + 1]))
    def want(self, numbers: list[int], of: int) -> None:
        self.transfer.want([(digest(n), SIZES[n]) for n in numbers], of=of)
        self.wanted |= set(numbers)

    @rule(peer=PEERS)
    def comes(self, peer: str) -> None:
        self.transfer.add_peer(peer, self.loads.setdefault(peer, Load()))

    @precondition(lambda self: self.loads)
    @rule(peer=PEERS)
    def leaves(self, peer: str) -> None:
        self.transfer.remove_peer(peer)
        if load := self.loads.pop(peer, None):
            assert (load.items, load.size) == (0, 0)
        self.asked = {n: who for n, who in self.asked.items() if who != peer}
        self.lacking = {(who, n) for who, n in self.lacking if who != peer}

    @rule(peer=PEERS)
    def asks(self, peer: str) -> None:
        light = peer in self.loads and self.loads[peer].light
        chosen = [int.from_bytes(one, "big") for one in self.transfer.requests(peer)]
        assert len(chosen) <= AT_ONCE and len(set(chosen)) == len(chosen)
        for number in chosen:
            assert number in self.wanted and number not in self.asked and (peer, number) not in self.lacking
            self.asked[number] = peer
        open_here = {n for n in self.wanted if n not in self.asked and (peer, n) not in self.lacking}
        assert not (light and open_here and not chosen), "whoever has room is asked for something"

    @rule(peer=PEERS, number=NUMBERS)
    def lacks(self, peer: str, number: int) -> None:
        self.transfer.lacks(peer, digest(number))
        if peer in self.loads and number in self.wanted:
            self.lacking.add((peer, number))
            if self.asked.get(number) == peer:
                del self.asked[number]

    @rule(peer=PEERS)
    def gives_up(self, peer: str) -> None:
        self.transfer.gave_up(peer)
        mine = {n for n, who in self.asked.items() if who == peer}
        self.lacking |= {(peer, n) for n in mine}
        self.asked = {n: who for n, who in self.asked.items() if n not in mine}

    @rule(peer=PEERS)
    def has_more(self, peer: str) -> None:
        self.transfer.has_more(peer)
        self.lacking = {(who, n) for who, n in self.lacking if who != peer}

    @rule(number=NUMBERS)
    def arrives(self, number: int) -> None:
        assert self.transfer.arrived(digest(number)) is (number in self.wanted)
        self.wanted.discard(number)
        self.asked.pop(number, None)

    @rule(numbers=st.lists(NUMBERS, max_size=5))
    def is_dropped(self, numbers: list[int]) -> None:
        self.transfer.drop(map(digest, numbers))
        for number in numbers:
            self.wanted.discard(number)
            self.asked.pop(number, None)

    @invariant()
    def the_load_is_what_is_under_way(self) -> None:
        for peer, load in self.loads.items():
            mine = [n for n, who in self.asked.items() if who == peer]
            assert (load.items, load.size) == (len(mine), sum(SIZES[n] for n in mine))
            assert load.items <= ITEMS and (load.size <= IN_FLIGHT or load.items == 1)

    @invariant()
    def nothing_wanted_is_forgotten(self) -> None:
        assert len(self.transfer) == len(self.wanted)
        for number in self.wanted:
            everybody_lacks = all((peer, number) in self.lacking for peer in self.loads)
            assert self.transfer.nobody_has([digest(number)]) is everybody_lacks


TestFetching = Fetching.TestCase
TestFetching.settings = settings(max_examples=60, stateful_step_count=40)
