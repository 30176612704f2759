"""The table of engine/reconcile, an example for each row; then what must hold whatever the three views are."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2psync.engine.heads import Head, Heads, same_bytes
from p2psync.engine.reconcile import Adopt, Agreed, Apply, Decision, Missing, Nothing, Record, agreement, reconcile
from p2psync.values.content import File, Gone, State
from p2psync.values.entry import Ref
from tests.engine.versions import FOLDER, GONE, agreed, file, head, heads, ref, state

ALL = "in a folder, or by itself"
IN_FOLDER = "in a folder"
SINGLE = "by itself"


def record(what: str | State, *parents: int) -> Record:
    return Record(state(what), tuple(map(ref, parents)))


def apply(found: Heads, number: int) -> Apply:
    assert found.winner.ref == ref(number)
    return Apply(found.winner, agreement(found))


NONE = heads()
A = heads((1, "a"))
B_AFTER_A = heads((2, "b"))
A_GONE = heads((2, GONE))
CONFLICT = heads((2, "b"), (3, "c"))

ROWS: list[tuple[str, str, str | State | None, Agreed | None, Heads, Decision]] = [
    ("nothing, never recorded", ALL, None, None, NONE, Nothing()),
    ("a new file", ALL, "a", None, NONE, record("a")),
    ("a new folder", IN_FOLDER, FOLDER, None, NONE, record(FOLDER)),
    ("in agreement", ALL, "a", agreed("a", [1]), A, Nothing()),
    ("in agreement that there is nothing", ALL, None, agreed(GONE, [2]), A_GONE, Nothing()),
    ("in agreement about one version of a conflict", ALL, "b", agreed("b", [2], [2, 3]), CONFLICT, Nothing()),
    ("the same bytes came about on both sides", ALL, "b", agreed("a", [1]), B_AFTER_A, Adopt(agreed("b", [2]))),
    ("the same bytes, never met before", ALL, "a", None, A, Adopt(agreed("a", [1]))),
    ("the same bytes, and each recorded them", ALL, "b", agreed("b", [2]), heads((2, "b"), (3, "b")), Adopt(agreed("b", [2, 3]))),
    ("another version of the conflict came", ALL, "b", agreed("b", [2]), CONFLICT, Adopt(agreed("b", [2], [2, 3]))),
    ("the same folder", IN_FOLDER, FOLDER, None, heads((1, FOLDER)), Adopt(agreed(FOLDER, [1]))),
    ("deleted on both sides", IN_FOLDER, None, agreed("a", [1]), A_GONE, Adopt(agreed(GONE, [2]))),
    ("never there, deleted elsewhere", ALL, None, None, A_GONE, Adopt(agreed(GONE, [2]))),
    ("missing", SINGLE, None, agreed("a", [1]), A, Missing()),
    ("missing, and newer elsewhere", SINGLE, None, agreed("a", [1]), B_AFTER_A, Missing()),
    ("missing, and in conflict elsewhere", SINGLE, None, agreed("a", [1]), CONFLICT, Missing()),
    ("newer elsewhere", ALL, "a", agreed("a", [1]), B_AFTER_A, apply(B_AFTER_A, 2)),
    ("deleted elsewhere", IN_FOLDER, "a", agreed("a", [1]), A_GONE, apply(A_GONE, 2)),
    ("made executable elsewhere", ALL, "a", agreed("a", [1]), heads((2, file("a", True))), apply(heads((2, file("a", True))), 2)),
    ("a conflict whose winner is not here", ALL, "c", agreed("c", [3]), CONFLICT, apply(CONFLICT, 2)),
    ("new here", ALL, None, None, A, apply(A, 1)),
    ("new here again, after a deletion", ALL, None, agreed(GONE, [2]), heads((3, "c")), apply(heads((3, "c")), 3)),
    ("attached again, as nothing is here", SINGLE, None, agreed(GONE, [1]), A, apply(A, 1)),
    ("deleted here", IN_FOLDER, None, agreed("a", [1]), A, record(GONE, 1)),
    ("a folder deleted here", IN_FOLDER, None, agreed(FOLDER, [1]), heads((1, FOLDER)), record(GONE, 1)),
    ("deleted here, edited elsewhere", IN_FOLDER, None, agreed("a", [1]), B_AFTER_A, apply(B_AFTER_A, 2)),
    ("saved here", ALL, "b", agreed("a", [1]), A, record("b", 1)),
    ("made executable here", ALL, file("a", True), agreed("a", [1]), A, record(file("a", True), 1)),
    ("saved here in spite of a conflict", ALL, "d", agreed("b", [2], [2, 3]), CONFLICT, record("d", 2)),
    ("a file became a folder", IN_FOLDER, FOLDER, agreed("a", [1]), A, record(FOLDER, 1)),
    ("saved where two had recorded the same", ALL, "d", agreed("b", [3, 2]), heads((2, "b"), (3, "b")), record("d", 2, 3)),
    ("what stands here lost elsewhere", ALL, "c", agreed("a", [1]), CONFLICT, apply(CONFLICT, 2)),
    ("never met, and it is the version that lost", ALL, "c", None, CONFLICT, apply(CONFLICT, 2)),
    ("both moved", ALL, "c", agreed("a", [1]), B_AFTER_A, record("c", 1)),
    ("saved here, deleted elsewhere", ALL, "c", agreed("a", [1]), A_GONE, record("c", 1)),
    ("something else was here before we met", ALL, "c", None, A, record("c")),
    ("a folder was here before we met", IN_FOLDER, FOLDER, None, A, record(FOLDER)),
]
CASES = [
    pytest.param(single, observed, known, found, decision, id=f"{name}, {SINGLE if single else IN_FOLDER}")
    for name, where, observed, known, found, decision in ROWS
    for single in (False, True)
    if where in (ALL, SINGLE if single else IN_FOLDER)
]


@pytest.mark.parametrize(("single", "observed", "known", "found", "decision"), CASES)
def test_row(single: bool, observed: str | File | None, known: Agreed | None, found: Heads, decision: Decision) -> None:
    here = file(observed) if isinstance(observed, str) else observed
    assert reconcile(here, known, found, single=single) == decision


MIRRORED = [
    # what Anna has, what Marie has (both from a = entry 1), what each decides once the other's entry is known
    ("b", "a", Nothing, Apply),
    ("b", "b", Adopt, Adopt),
    (GONE, "a", Nothing, Apply),
    (GONE, GONE, Adopt, Adopt),
    ("b", GONE, Adopt, Apply),
    ("b", "c", Adopt, Apply),
    (FOLDER, "b", Adopt, Apply),
    (FOLDER, GONE, Adopt, Apply),
]


@pytest.mark.parametrize(
    ("one", "other", "decides", "decides_too"), MIRRORED, ids=lambda value: getattr(value, "__name__", str(value)[:12])
)
@pytest.mark.parametrize("swapped", [False, True])
def test_two_machines_that_recorded_come_to_the_same(one, other, decides: type, decides_too: type, swapped: bool) -> None:
    """Entry 2 is the one machine's, entry 3 the other's; the winner is what entry 2 says, be it Anna's or Marie's."""
    own = [(number, what) for number, what in ((2, one), (3, other)) if what != "a"]
    found = heads(*own)
    sides = [(one, 2, decides), (other, 3, decides_too)]
    after = []
    for what, number, expected in reversed(sides) if swapped else sides:
        known = agreed(what, [number if what != "a" else 1])
        here = None if what == GONE else state(what)
        decision = reconcile(here, known, found, single=False)  # type: ignore[arg-type]
        assert type(decision) is expected
        after.append(decision.head.state if isinstance(decision, Apply) else state(what))
    assert after == [found.winner.state] * 2


# ---- whatever the three views are

CONTENTS: list[State] = [file("a"), file("b"), file("c"), file("a", True), file("b", True)]
STATES = st.sampled_from([*CONTENTS, FOLDER, GONE])
OBSERVED = st.sampled_from([*CONTENTS, FOLDER, None])
REFS = st.frozensets(st.integers(1, 12).map(ref), max_size=4)
HEADS = st.dictionaries(st.integers(1, 12), STATES, max_size=4).map(lambda d: Heads.of([head(n, s) for n, s in d.items()]))


@st.composite
def agreements(draw) -> Agreed:
    refs = draw(REFS)
    return Agreed(draw(STATES), refs, refs | draw(REFS))


@dataclass
class Path:
    """One path on one machine: what a disk, a ledger and a journal would hold of it."""

    observed: State | None
    agreed: Agreed | None
    entries: dict[Ref, State]
    superseded: set[Ref] = field(default_factory=set)
    single: bool = False

    @property
    def heads(self) -> Heads:
        return Heads.of([Head(ref, state) for ref, state in self.entries.items() if ref not in self.superseded])

    def decide(self) -> Decision:
        return reconcile(self.observed, self.agreed, self.heads, single=self.single)  # type: ignore[arg-type]

    def carry_out(self, decision: Decision, new: Ref) -> None:
        match decision:
            case Record(made, parents):
                self.entries[new] = made
                self.superseded |= set(parents)
                self.agreed = Agreed(made, frozenset((new,)), self.heads.refs)
            case Adopt(agreement):
                self.agreed = agreement
            case Apply(winner, agreement):
                self.observed = None if isinstance(winner.state, Gone) else winner.state
                self.agreed = agreement

    def settle(self, new: int = 100) -> list[Decision]:
        """Decide and carry out until there is nothing to do."""
        done: list[Decision] = []
        while not isinstance(decision := self.decide(), Nothing | Missing):
            self.carry_out(decision, ref(new + len(done)))
            done.append(decision)
            assert len(done) <= 3, f"it does not end: {done}"
        return done


@given(OBSERVED, st.none() | agreements(), HEADS, st.booleans())
def test_it_ends_and_nothing_that_stood_there_is_forgotten(observed, known, found: Heads, single: bool) -> None:
    path = Path(observed, known, {h.ref: h.state for h in found.all}, single=single)
    done = path.settle()
    assert sum(isinstance(decision, Record) for decision in done) <= 1
    if isinstance(path.decide(), Missing):
        assert single and path.observed is None
        return
    assert not path.heads.all or (path.observed or GONE) == path.heads.winner.state
    if isinstance(observed, File):
        kept = {h.state.content for h in path.heads.all if isinstance(h.state, File)}
        assert observed.content in kept or (known is not None and observed == known.state), "it is a version, or was one already"


@given(st.none() | agreements(), HEADS)
def test_a_single_file_that_is_missing_deletes_nothing(known, found: Heads) -> None:
    decision = reconcile(None, known, found, single=True)
    assert not (isinstance(decision, Record) and isinstance(decision.state, Gone) and known and not isinstance(known.state, Gone))


@given(OBSERVED, st.none() | agreements(), HEADS, st.booleans())
def test_a_deletion_is_recorded_only_of_what_was_agreed_and_by_nothing_else_than_absence(
    observed, known, found: Heads, single: bool
) -> None:
    decision = reconcile(observed, known, found, single=single)
    if isinstance(decision, Record) and isinstance(decision.state, Gone):
        assert observed is None and known is not None and not isinstance(known.state, Gone) and not single
        assert found.refs <= known.seen, "what its author did not know of is not deleted"


@given(OBSERVED, st.none() | agreements(), HEADS, st.booleans())
def test_whoever_records_supersedes_only_what_it_agreed_to(observed, known, found: Heads, single: bool) -> None:
    decision = reconcile(observed, known, found, single=single)
    if isinstance(decision, Record):
        assert set(decision.parents) == (known.refs if known and found.all else set())
        assert decision.state == (observed or GONE)


# ---- several machines, as a little model without disks

ACTS = st.one_of(
    st.tuples(st.just("change"), st.integers(0, 2), OBSERVED),
    st.tuples(st.just("settle"), st.integers(0, 2), st.none()),
    st.tuples(st.just("learn"), st.integers(0, 2), st.integers(1, 2)),
)


class Model:
    """Three machines with one path each, that tell each other everything they know, in causal order."""

    def __init__(self, numbers: list[int]) -> None:
        self.paths = [Path(file("a"), agreed("a", [500]), {ref(500): file("a")}) for _ in range(3)]
        self.numbers = numbers
        self.made = 0

    def settle(self, machine: int) -> None:
        """Entries get numbers without any order, for it is hashes that decide the winner."""
        path = self.paths[machine]
        for _ in range(5):
            decision = path.decide()
            if isinstance(decision, Nothing):
                return
            path.carry_out(decision, ref(self.numbers[self.made % len(self.numbers)] * 1000 + self.made))
            self.made += 1
        raise AssertionError("it does not end")

    def learn(self, machine: int, other: int) -> None:
        mine, theirs = self.paths[machine], self.paths[other]
        mine.entries |= theirs.entries
        mine.superseded |= theirs.superseded

    def exchange(self) -> None:
        for _ in range(3):
            for machine in range(3):
                for other in range(3):
                    self.learn(machine, other)
                self.settle(machine)


@settings(max_examples=300)
@given(st.lists(ACTS, max_size=25), st.permutations(range(1, 8)))
def test_machines_agree_in_the_end_and_both_sides_of_a_conflict_survive(acts, numbers: list[int]) -> None:
    model = Model(numbers)
    for what, machine, other in acts:
        if what == "change":
            model.paths[machine].observed = other
        elif what == "settle":
            model.settle(machine)
        else:
            model.learn(machine, (machine + other) % 3)
    model.exchange()
    first = model.paths[0]
    for path in model.paths:
        assert path.entries == first.entries and path.superseded == first.superseded
        assert path.observed == first.observed
        assert isinstance(path.decide(), Nothing)
    shown = {h.state.content for h in (first.heads.winner, *first.heads.others) if isinstance(h.state, File)}
    assert shown == {h.state.content for h in first.heads.all if isinstance(h.state, File)}
    assert not any(same_bytes(other.state, first.heads.winner.state) for other in first.heads.others)


@given(st.sampled_from(CONTENTS), st.permutations(range(1, 8)))
def test_machines_that_all_saved_the_same_bytes_do_not_conflict(content: State, numbers: list[int]) -> None:
    model = Model(numbers)
    for machine in range(3):
        model.paths[machine].observed = content
        model.settle(machine)
    model.exchange()
    assert all(path.heads.others == () and path.observed == content for path in model.paths)


@given(st.permutations(range(1, 8)))
def test_a_save_on_top_of_what_is_known_is_no_conflict(numbers: list[int]) -> None:
    model = Model(numbers)
    for turn, text in enumerate("bcdef"):
        machine = turn % 3
        model.paths[machine].observed = file(text)
        model.settle(machine)
        model.exchange()
        assert all(path.observed == file(text) and path.heads.others == () for path in model.paths)
