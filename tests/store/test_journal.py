"""The journal: chained, in causal order, and the same for all who have the same records."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey

from p2psync.store.journal import Early, End, Forked, Journal, Log, Past, Unfit, _frontier, merge
from p2psync.store.ledger import Ledger
from p2psync.values.names import DeviceId, MandateId, RecordId
from p2psync.values.record import MAX_DEPS, Kind, Record
from tests.lan.desks import fast_place

MANDATE = MandateId(b"m" * 32)


class Member:
    """One member with a journal of its own; what it says is as good as any record, for nothing is judged here."""

    def __init__(self, folder: Path, number: int) -> None:
        self.key = SigningKey(number.to_bytes(32, "big"))
        self.ledger = Ledger(folder / f"{number}.db")
        self.journal = Journal(self.ledger, MANDATE)
        self.clock = 0

    @property
    def log(self) -> Log:
        return DeviceId(bytes(self.key.verify_key)), b"incarnat"

    def compose(self, said: int = 0) -> tuple[Record, Past]:
        self.clock += 1
        return self.journal.compose(self.key, b"incarnat", Kind.CHANGE, [said], self.clock, {})

    def say(self, said: int = 0) -> Record:
        record, past = self.compose(said)
        self.keep(record, past)
        return record

    def keep(self, record: Record, past: Past) -> None:
        with self.ledger.write() as db:
            self.journal.insert(db, record, past)
        self.journal.appended(record, past)

    def hear(self, record: Record) -> Past | Early | None:
        """Take one record, if it can be taken now."""
        with self.ledger.write() as db:
            past = self.journal.fits(db, record)
        if isinstance(past, dict):
            self.keep(record, past)
        return past

    def tails(self, other: Member | None = None) -> list[Record]:
        """What this member has and ``other`` lacks."""
        known = other.journal.ends if other else {}
        ends = self.journal.ends
        ranges = {log: (known[log].seq + 1 if log in known else 1, end.seq) for log, end in ends.items()}
        return [Record.parse(raw) for raw in self.journal.tails(ranges, 1 << 30)[0]]

    def learn(self, other: Member) -> None:
        for record in other.tails(self):
            assert not isinstance(self.hear(record), Early)


@pytest.fixture
def members(tmp_path: Path) -> Iterator[list[Member]]:
    found = [Member(tmp_path, number) for number in (1, 2, 3)]
    yield found
    for member in found:
        member.ledger.close()


# ---- chaining


def test_each_record_names_the_one_before_it_in_its_log(members: list[Member]) -> None:
    anna = members[0]
    first, second = anna.say(), anna.say()
    assert (first.seq, first.prev) == (1, None)
    assert (second.seq, second.prev) == (2, first.id)
    assert second.deps == ()


def test_a_record_names_what_its_author_had_learnt_since(members: list[Member]) -> None:
    anna, marie, luc = members
    anna.say()
    by_anna = anna.say()
    marie.learn(anna)
    by_marie = marie.say()
    assert by_marie.deps == (by_anna.id,)
    luc.learn(marie)
    assert luc.say().deps == (by_marie.id,), "which leads to Anna's"
    assert marie.say().deps == (), "nothing new was learnt"


def test_two_ends_that_know_nothing_of_each_other_are_both_named(members: list[Member]) -> None:
    anna, marie, luc = members
    one, other = anna.say(), marie.say()
    luc.learn(anna)
    luc.learn(marie)
    assert set(luc.say().deps) == {one.id, other.id}


def test_a_record_in_the_same_transaction_stands_on_the_one_before(members: list[Member]) -> None:
    anna = members[0]
    first, past = anna.compose()
    newer = {anna.log: End(1, first.id, past)}
    second, _ = anna.journal.compose(anna.key, b"incarnat", Kind.CHANGE, [0], 0, newer)
    assert second.prev == first.id
    assert anna.journal.ends == {}, "neither is written yet"


# ---- what fits


def test_a_record_that_comes_too_early_says_what_it_stands_on(members: list[Member]) -> None:
    anna, marie, luc = members
    first, second = anna.say(), anna.say()
    early = marie.hear(second)
    assert isinstance(early, Early) and early.record == second and early.needs == first.id
    luc.learn(anna)
    third = luc.say()
    early = marie.hear(third)
    assert isinstance(early, Early) and early.needs == second.id
    assert marie.journal.ends == {}
    for record in (first, second, third):
        marie.hear(record)
    assert marie.journal.view() == luc.journal.view()


def test_a_known_record_is_no_news(members: list[Member]) -> None:
    anna, marie, _ = members
    record = anna.say()
    assert marie.hear(record) == {anna.log: 1}
    assert marie.hear(record) is None


def test_another_record_at_the_same_place_is_a_fork(members: list[Member]) -> None:
    anna, marie, _ = members
    other, _ = anna.compose(2)
    marie.hear(anna.say(1))
    with pytest.raises(Forked):
        marie.hear(other)
    assert marie.journal.ends[anna.log].seq == 1


def test_a_record_of_another_mandate_does_not_fit(members: list[Member], tmp_path: Path) -> None:
    anna, marie, _ = members
    elsewhere = Journal(anna.ledger, MandateId(b"x" * 32))
    record, _ = elsewhere.compose(anna.key, b"incarnat", Kind.CHANGE, [0], 0, {})
    with pytest.raises(Unfit):
        marie.hear(record)


def signed(member: Member, seq: int, prev: RecordId | None, *, incarnation: bytes = b"incarnat", deps: tuple[RecordId, ...] = ()) -> Record:
    return Record.sign(
        member.key, mandate=MANDATE, incarnation=incarnation, seq=seq, prev=prev, deps=deps, time_ms=0, kind=Kind.CHANGE, body=[9]
    )


def test_what_continues_another_log_or_leaves_a_gap_does_not_fit(members: list[Member]) -> None:
    anna, marie, luc = members
    first, second = anna.say(), anna.say()
    luc.learn(anna)
    for forged in (
        signed(anna, 4, second.id),  # a gap
        signed(anna, 3, first.id),  # not the end
        signed(anna, 2, first.id, incarnation=b"another!"),  # another log of the same machine
        signed(marie, 2, first.id),  # another machine's
    ):
        with pytest.raises(Unfit):
            luc.hear(forged)
    assert luc.journal.view() == anna.journal.view()


def test_a_machine_may_have_several_logs(members: list[Member]) -> None:
    anna, marie, _ = members
    marie.hear(anna.say())
    again = signed(anna, 1, None, incarnation=b"another!", deps=(anna.journal.ends[anna.log].id,))
    past = marie.hear(again)
    assert past == {anna.log: 1, (anna.log[0], b"another!"): 1}
    assert set(marie.say().deps) == {again.id}


# ---- what is in the past


def test_the_past_of_a_record_is_all_that_its_author_knew(members: list[Member]) -> None:
    anna, marie, luc = members
    anna.say()
    marie.learn(anna)
    marie.say()
    anna.say()
    luc.say()
    luc.learn(marie)
    record, past = luc.compose()
    assert past == {anna.log: 1, marie.log: 1, luc.log: 2}
    luc.keep(record, past)
    anna.learn(luc)
    assert anna.journal.ends[luc.log].past == past


def test_too_many_ends_to_name_are_those_that_knew_most() -> None:
    def end(number: int, knew: int) -> tuple[Log, End]:
        log = (DeviceId(number.to_bytes(32, "big")), b"incarnat")
        return log, End(1, RecordId(number.to_bytes(32, "big")), {log: 1, (DeviceId(b"x" * 32), bytes([number]) * 8): knew})

    ends = dict(end(number, number) for number in range(1, MAX_DEPS + 6))
    mine = (DeviceId(b"me" * 16), b"incarnat")
    found = _frontier(ends, mine, {})
    assert len(found) == MAX_DEPS
    assert {int.from_bytes(one.id, "big") for one in found} == set(range(6, MAX_DEPS + 6))


@given(st.dictionaries(st.integers(0, 5), st.integers(1, 9)), st.dictionaries(st.integers(0, 5), st.integers(1, 9)))
def test_merging_pasts_takes_the_later_of_each(one: dict[int, int], other: dict[int, int]) -> None:
    merged: dict[int, int] = dict(one)
    merge(merged, other)  # type: ignore[arg-type]
    assert merged == {log: max(one.get(log, 0), other.get(log, 0)) for log in one.keys() | other.keys()}


# ---- what others are sent


def test_the_tails_come_in_an_order_in_which_they_can_be_taken(members: list[Member]) -> None:
    anna, marie, luc = members
    for _ in range(3):
        anna.say()
        marie.learn(anna)
        marie.say()
        anna.learn(marie)
    sent = anna.tails()
    assert len(sent) == 6
    for record in sent:
        assert isinstance(luc.hear(record), dict)
    assert luc.tails(marie) == []


def test_tails_come_in_pages(members: list[Member]) -> None:
    anna = members[0]
    records = [anna.say() for _ in range(10)]
    ranges = {anna.log: (3, 9)}
    size = max(len(record.raw) for record in records)
    taken, pages, after = [], 0, 0
    while True:
        raws, after = anna.journal.tails(ranges, 3 * (size + 5), after)
        taken += raws
        pages += 1
        assert 0 < len(raws) <= 3
        if not after:
            break
    assert taken == [record.raw for record in records[2:9]]
    assert pages == 3


def test_a_page_has_one_record_at_least(members: list[Member]) -> None:
    anna = members[0]
    records = [anna.say() for _ in range(2)]
    raws, after = anna.journal.tails({anna.log: (1, 2)}, 1)
    assert raws == [records[0].raw] and after
    assert anna.journal.tails({anna.log: (1, 2)}, 1, after) == ([records[1].raw], 0)


def test_what_is_not_there_is_not_sent(members: list[Member]) -> None:
    anna, marie, _ = members
    anna.say()
    for ranges in ({anna.log: (2, 9)}, {marie.log: (1, 9)}, {anna.log: (2**64 - 1, 2**64 - 1)}, {anna.log: (5, 1)}, {}):
        assert anna.journal.tails(ranges, 1 << 20) == ([], 0)


# ---- the whole


def test_views_are_equal_exactly_when_the_journals_are(members: list[Member]) -> None:
    anna, marie, _ = members
    assert anna.journal.view() == marie.journal.view()
    anna.say()
    before = anna.journal.view()
    assert before != marie.journal.view()
    marie.learn(anna)
    assert before == marie.journal.view()
    marie.say()
    assert before == anna.journal.view() != marie.journal.view()


def test_a_journal_is_found_again_as_it_was(members: list[Member]) -> None:
    anna, marie, _ = members
    record = anna.say()
    marie.learn(anna)
    marie.say()
    again = Journal(marie.ledger, MANDATE)
    assert again.ends == marie.journal.ends and again.view() == marie.journal.view()
    assert again.get(record.id) == record and again.get(RecordId(bytes(32))) is None
    with marie.ledger.write() as db:
        assert again.knows(db, record.id) and not again.knows(db, RecordId(bytes(32)))
    assert [r for r, _ in again.of_kinds(Kind.CHANGE)] == marie.tails()
    assert again.of_kinds(Kind.GRANT) == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(3, 5), st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=30), st.randoms(use_true_random=False))
def test_whatever_is_said_and_told_in_whatever_order_all_end_with_the_same(
    size: int, history: list[tuple[int, int]], chance: random.Random
) -> None:
    with fast_place() as folder:
        members = [Member(folder, number) for number in range(1, size + 1)]
        try:
            _live(members, history)
            _meet_in_pieces(members, chance)
            assert len({member.journal.view() for member in members}) == 1
            ends = [member.journal.ends for member in members]
            assert all(other == ends[0] for other in ends), "every past is the same for all"
            _assert_causal(members[0].tails())
        finally:
            for member in members:
                member.ledger.close()


def _live(members: list[Member], history: list[tuple[int, int]]) -> None:
    """Twice the same machine: it says something. Two machines: the second learns from the first."""
    for one, other in history:
        speaker, listener = members[one % len(members)], members[other % len(members)]
        if speaker is listener:
            speaker.say()
        else:
            listener.learn(speaker)


def _meet_in_pieces(members: list[Member], chance: random.Random) -> None:
    """Everybody is told everything, in any order: what comes too early is offered again."""
    everything = list({record.id: record for member in members for record in member.tails()}.values())
    for member in members:
        waiting = list(everything)
        while waiting:
            chance.shuffle(waiting)
            waiting = [record for record in waiting if isinstance(member.hear(record), Early)]


def _assert_causal(records: list[Record]) -> None:
    """Nothing stands before what it stands on, and a later record of a log knows at least as much."""
    seen: set[RecordId] = set()
    for record in records:
        assert seen.issuperset(record.deps) and (record.prev is None or record.prev in seen)
        seen.add(record.id)
    for log in {record.log for record in records}:
        seqs = [record.seq for record in records if record.log == log]
        assert seqs == list(range(1, len(seqs) + 1))
