"""Who is asked for which chunk: bounded, fair to small files, and nobody twice for the same."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from p2psync.engine.load import IN_FLIGHT, ITEMS, SILENT_AFTER, SLOW_AFTER, Load
from p2psync.engine.transfer import AT_ONCE, SMALL, TRUST, Transfer
from p2psync.values.content import CHUNK_MAX
from p2psync.values.digest import Digest


def digest(number: int) -> Digest:
    return Digest(number.to_bytes(32, "big"))


def chunks(*numbers: int, size: int = 1000) -> list[tuple[Digest, int]]:
    return [(digest(number), size) for number in numbers]


@pytest.fixture
def transfer() -> Transfer[str]:
    found: Transfer[str] = Transfer()
    add(found, "marie")
    return found


def add(transfer: Transfer[str], peer: str, load: Load | None = None) -> Load:
    """Somebody who is likely to have everything, over a fast link."""
    load = load or Load(window=IN_FLIGHT)
    transfer.add_peer(peer, load)
    transfer.trust(peer, fully=True)
    return load


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
        transfer.arrived("marie", one)
    assert len(transfer.requests("marie")) == len(first) // 2


def test_what_is_under_way_is_counted_for_the_link_over_all_mandates() -> None:
    one: Transfer[str] = Transfer()
    other: Transfer[str] = Transfer()
    link = Load(window=IN_FLIGHT)
    for transfer in (one, other):
        add(transfer, "marie", link)
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
    assert transfer.arrived("marie", digest(1))
    assert not transfer.arrived("marie", digest(1)) and not transfer.arrived("marie", digest(9))
    assert len(transfer) == 0 and not transfer.wanted(digest(1))


def test_dropping_makes_room(transfer: Transfer[str]) -> None:
    transfer.want(chunks(*range(200), size=CHUNK_MAX), of=200 * CHUNK_MAX)
    first = transfer.requests("marie")
    transfer.drop(first)
    assert len(transfer.requests("marie")) == len(first)


def test_nobody_has_anything_when_there_is_nobody() -> None:
    assert Transfer[str]().nobody_has([digest(1)])


# ---- who is late


def test_what_a_silent_one_owes_is_asked_of_another_once_nothing_else_is_left() -> None:
    transfer, marie, _ = two()
    transfer.want(chunks(1, 2), of=2000)
    assert transfer.requests("marie", 10.0) == [digest(1), digest(2)]
    transfer.want(chunks(3), of=1000)
    just_before = 10.0 + SILENT_AFTER - 0.01
    assert not marie.judge(just_before) and not transfer.tend("marie", just_before) and transfer.requests("luc", just_before) == [digest(3)]
    assert transfer.requests("luc", just_before) == []
    assert marie.judge(10.0 + SILENT_AFTER) and transfer.tend("marie", 10.0 + SILENT_AFTER)
    assert transfer.requests("luc", 12.0) == [digest(1), digest(2)]
    assert not transfer.tend("marie", 100.0) and transfer.requests("luc", 12.0) == []


def test_the_first_answer_counts_and_the_late_one_is_asked_for_nothing_until_it_answers() -> None:
    transfer, marie, luc = two()
    transfer.want(chunks(1, 2, 3), of=3000)
    transfer.requests("marie", 0.0)
    assert marie.judge(2.0) and transfer.tend("marie", 2.0)
    transfer.requests("luc", 2.0)
    assert transfer.arrived("luc", digest(1)) and transfer.arrived("luc", digest(2))
    assert (marie.items, luc.items) == (3, 1), "what was asked of her is still under way"
    transfer.want(chunks(4), of=1000)
    assert transfer.requests("marie", 3.0) == []
    assert marie.heard(4.0)
    assert not transfer.arrived("marie", digest(1)) and transfer.arrived("marie", digest(3))
    assert (marie.items, luc.items) == (1, 1)
    assert transfer.requests("marie", 4.0) == [digest(4)]


def test_a_second_one_that_falls_silent_is_late_too() -> None:
    transfer, _, _ = two()
    transfer.add_peer("anna", Load())
    transfer.want(chunks(1), of=1000)
    for now, peer in ((0.0, "marie"), (2.0, "luc"), (4.0, "anna")):
        assert transfer.requests(peer, now) == [digest(1)]
        assert transfer.tend(peer, now + SILENT_AFTER)
    assert [transfer.requests(peer, 9.0) for peer in ("marie", "luc", "anna")] == [[], [], []]


def test_one_that_answers_slowly_is_late_with_what_takes_too_long() -> None:
    transfer, marie, _ = two()
    transfer.want(chunks(1, 2), of=2000)
    transfer.requests("marie", 0.0)
    for second in range(1, int(SLOW_AFTER)):
        marie.heard(float(second))
        assert not transfer.tend("marie", float(second))
    assert transfer.tend("marie", SLOW_AFTER) and not marie.judge(SLOW_AFTER)
    assert transfer.requests("luc", SLOW_AFTER) == [digest(1), digest(2)]


def test_nobody_is_late_while_we_do_not_listen() -> None:
    transfer, marie, _ = two()
    transfer.want(chunks(1), of=1000)
    transfer.requests("marie", 0.0)
    marie.held_up(100.0)
    assert not marie.judge(101.0) and not transfer.tend("marie", 101.0)
    assert marie.judge(102.0) and transfer.tend("marie", 102.0)


def test_the_silence_counts_from_when_something_is_owed() -> None:
    transfer, marie, _ = two()
    assert not marie.judge(1000.0)
    transfer.want(chunks(1), of=1000)
    transfer.requests("marie", 1000.0)
    assert not marie.judge(1001.0)


def two() -> tuple[Transfer[str], Load, Load]:
    """Marie and Luc can be asked."""
    transfer: Transfer[str] = Transfer()
    return transfer, add(transfer, "marie"), add(transfer, "luc")


# ---- what it costs


class Counted(bytes):
    """A digest that counts how often it is looked up."""

    looks = 0

    def __hash__(self) -> int:
        Counted.looks += 1
        return super().__hash__()


def _looks_for(count: int, lacking: int) -> float:
    """How often a chunk is looked at on average, while so many come from one of two peers; the other lacks the first of them."""
    transfer, _, _ = two()
    ids = [Counted(number.to_bytes(32, "big")) for number in range(count)]
    Counted.looks = 0
    transfer.want([(Digest(one), 65536) for one in ids], of=count * 65536)
    waiting = {"luc": deque[Digest](), "marie": deque[Digest]()}
    while len(transfer):
        for peer, asked in waiting.items():
            asked.extend(transfer.requests(peer, 0.0))
            if asked:
                one = asked.popleft()
                if peer == "luc" and int.from_bytes(one, "big") < lacking:
                    transfer.lacks(peer, one)
                else:
                    assert transfer.arrived(peer, one)
    return Counted.looks / count


@pytest.mark.parametrize("share", [0, 1])
def test_an_answered_chunk_costs_the_same_however_many_are_wanted(share: int) -> None:
    """1 GiB is about 16,000 chunks."""
    few, many = _looks_for(1000, 1000 * share), _looks_for(16_000, 16_000 * share)
    assert many < 1.5 * few, (few, many)


# ---- whatever happens

NUMBERS = st.integers(0, 40)
PEERS = st.sampled_from(["marie", "luc", "anna"])
SIZES = {number: 1 + number * 7919 % CHUNK_MAX for number in range(41)}


class Fetching(RuleBasedStateMachine):
    """Whatever is wanted, lacked, late and dropped and whoever comes and goes: never two on time for one chunk, and the load is what is
    under way.
    """

    def __init__(self) -> None:
        super().__init__()
        self.transfer: Transfer[str] = Transfer()
        self.now = 0.0
        self.loads: dict[str, Load] = {}
        self.wanted: dict[int, set[str]] = {}
        self.on_time: dict[int, tuple[str, float]] = {}
        self.owed: dict[str, set[int]] = {}
        self.lacking: set[tuple[str, int]] = set()
        self.said: set[int] = set()

    @rule(numbers=st.lists(NUMBERS, max_size=10), of=st.sampled_from([1000, SMALL + 1]))
    def want(self, numbers: list[int], of: int) -> None:
        self.transfer.want([(digest(n), SIZES[n]) for n in numbers], of=of)
        for number in numbers:
            self.wanted.setdefault(number, set())

    @rule(peer=PEERS)
    def comes(self, peer: str) -> None:
        self.transfer.add_peer(peer, self.loads.setdefault(peer, Load(heard_at=self.now, held_at=self.now, window=IN_FLIGHT)))
        self.owed.setdefault(peer, set())

    @precondition(lambda self: self.loads)
    @rule(peer=PEERS)
    def leaves(self, peer: str) -> None:
        self.transfer.remove_peer(peer)
        if load := self.loads.pop(peer, None):
            assert (load.items, load.size) == (0, 0)
            self._take_back(peer)
            del self.owed[peer]
        self.lacking = {(who, n) for who, n in self.lacking if who != peer}

    def _take_back(self, peer: str, *numbers: int) -> None:
        for number in numbers or list(self.owed[peer]):
            self.owed[peer].discard(number)
            if number in self.wanted:
                self.wanted[number].discard(peer)
            if number in self.on_time and self.on_time[number][0] == peer:
                del self.on_time[number]

    @rule(peer=PEERS)
    def asks(self, peer: str) -> None:
        light = peer in self.loads and self.loads[peer].light
        chosen = [int.from_bytes(one, "big") for one in self.transfer.requests(peer, self.now)]
        assert len(chosen) <= AT_ONCE and len(set(chosen)) == len(chosen)
        assert light or not chosen
        for number in chosen:
            assert number in self.wanted and number not in self.on_time
            assert number not in self.owed[peer] and (peer, number) not in self.lacking
            self.on_time[number] = peer, self.now
            self.owed[peer].add(number)
            self.wanted[number].add(peer)
        if light:
            open_here = {n for n in self.wanted if n not in self.on_time and (peer, n) not in self.lacking} - self.owed[peer]
            assert not open_here or chosen or self._is_left_to_others(peer, open_here), "whoever has room is asked for something"

    def _is_left_to_others(self, peer: str, numbers: set[int]) -> bool:
        """What may be asked of ``peer`` on the mere chance is under way, or somebody else is likelier to have it."""
        known = self.transfer._peers[peer]
        likelier = [who for who, one in self.transfer._peers.items() if one.trusted]
        beside = not known.trusted and all(any((who, n) not in self.lacking for who in likelier) for n in numbers)
        return len(known.guesses) >= (known.trust or TRUST) or beside or all((n in self.said) for n in numbers)

    @rule(peer=PEERS, fully=st.booleans())
    def is_trusted(self, peer: str, fully: bool) -> None:
        self.transfer.trust(peer, fully=fully)

    @rule(peer=PEERS, numbers=st.lists(NUMBERS, max_size=10))
    def says(self, peer: str, numbers: list[int]) -> None:
        self.transfer.says(peer, map(digest, numbers), self.now)
        if peer in self.loads:
            self.lacking = {(who, n) for who, n in self.lacking if who != peer or digest(n) in self.transfer._peers[who].lacks}
        self.said |= set(numbers)

    @rule(peer=PEERS, number=NUMBERS)
    def lacks(self, peer: str, number: int) -> None:
        self.transfer.lacks(peer, digest(number))
        if peer in self.loads:
            if number in self.wanted:
                self.lacking.add((peer, number))
            self._take_back(peer, number)

    @rule(peer=PEERS)
    def gives_up(self, peer: str) -> None:
        self.transfer.gave_up(peer)
        if peer in self.loads:
            self.lacking |= {(peer, n) for n in self.owed[peer] if n in self.wanted}
            self._take_back(peer)

    @rule(peer=PEERS)
    def has_more(self, peer: str) -> None:
        self.transfer.has_more(peer)
        self.lacking = {(who, n) for who, n in self.lacking if who != peer}

    @rule(peer=PEERS, number=NUMBERS)
    def arrives(self, peer: str, number: int) -> None:
        if peer in self.loads:
            self.loads[peer].heard(self.now)
            self.owed[peer].discard(number)
        assert self.transfer.arrived(peer, digest(number)) is (number in self.wanted)
        self.wanted.pop(number, None)
        self.on_time.pop(number, None)

    @rule(numbers=st.lists(NUMBERS, max_size=5))
    def is_dropped(self, numbers: list[int]) -> None:
        self.transfer.drop(map(digest, numbers))
        for number in numbers:
            for peer in self.wanted.pop(number, ()):
                self.owed[peer].discard(number)
            self.on_time.pop(number, None)

    @rule(seconds=st.sampled_from([0.1, 1.0, SILENT_AFTER, SLOW_AFTER]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(peer=PEERS)
    def is_tended(self, peer: str) -> None:
        if peer in self.loads:
            load = self.loads[peer]
            is_late = bool(self.owed[peer]) and self.now - load.heard_at >= SILENT_AFTER
            assert load.judge(self.now) is (is_late or load.late)
            late = {n for n, (who, at) in self.on_time.items() if who == peer and self._is_due(load, at)}
            assert self.transfer.tend(peer, self.now) or not late
            for number in late:
                del self.on_time[number]

    def _is_due(self, load: Load, at: float) -> bool:
        return self.now - max(at, load.heard_at) >= SILENT_AFTER or self.now - max(at, load.held_at) >= SLOW_AFTER

    @invariant()
    def the_load_is_what_is_under_way(self) -> None:
        for peer, load in self.loads.items():
            mine = self.owed[peer]
            assert (load.items, load.size) == (len(mine), sum(SIZES[n] for n in mine))
            assert load.items <= ITEMS and (load.size <= IN_FLIGHT or load.items == 1)

    @invariant()
    def what_is_said_is_counted(self) -> None:
        for one, chunk in self.transfer._wanted.items():
            assert chunk.said == sum(one in says for known in self.transfer._peers.values() for says in known.says)
        assert all(one in self.transfer._wanted for known in self.transfer._peers.values() for says in known.says for one in says)

    @invariant()
    def nothing_wanted_is_forgotten(self) -> None:
        assert len(self.transfer) == len(self.wanted)
        for number in self.wanted:
            everybody_lacks = all((peer, number) in self.lacking for peer in self.loads)
            assert self.transfer.nobody_has([digest(number)]) is everybody_lacks


TestFetching = Fetching.TestCase
TestFetching.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


# ---- in the end

HOLDERS = st.dictionaries(PEERS, st.tuples(st.sets(NUMBERS), st.sets(NUMBERS), st.booleans()), min_size=1)


@given(HOLDERS, st.lists(NUMBERS, unique=True), st.sets(PEERS))
def test_whatever_somebody_has_comes_whoever_is_trusted_and_whatever_is_said(
    holders: dict[str, tuple[set[int], set[int], bool]], numbers: list[int], silent: set[str]
) -> None:
    """Each has some of it, says that it has some, truly or not, and may be believed to have it all, or fall silent."""
    transfer: Transfer[str] = Transfer()
    loads = {peer: Load() for peer in holders}
    transfer.want([(digest(n), SIZES[n]) for n in numbers], of=SMALL)
    for peer, (_, says, fully) in holders.items():
        transfer.add_peer(peer, loads[peer])
        transfer.trust(peer, fully=fully)
        transfer.says(peer, map(digest, says))
    got: set[int] = set()
    now = 0.0
    for _ in range(20 + 4 * len(numbers)):
        now += SILENT_AFTER
        for peer, (has, _, _) in holders.items():
            for one in transfer.requests(peer, now):
                number = int.from_bytes(one, "big")
                if peer in silent:
                    continue
                loads[peer].heard(now)
                if number in has:
                    transfer.arrived(peer, one)
                    got.add(number)
                else:
                    transfer.lacks(peer, one)
        for peer in silent & holders.keys():
            loads[peer].judge(now)
            transfer.tend(peer, now)
    reachable = set().union(*(has for peer, (has, _, _) in holders.items() if peer not in silent))
    assert got == reachable & set(numbers)
