"""The planner alone: whole offices without disks, in which everything happens in any order and is interrupted anywhere.

What the machines come to is compared with a judgement that shares no code with the planner (planner_judge). `P2PSYNC_LONG=1` tries
many more cases.
"""

from __future__ import annotations

import itertools
import os
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from p2psync.engine.heads import Head, Heads, same_bytes
from p2psync.engine.reconcile import Adopt, Agreed, Apply, Decision, Missing, Nothing, Record, reconcile
from p2psync.values.content import Content, File, Folder, Gone, State
from p2psync.values.entry import Ref
from tests.engine.planner_office import PATHS, SINGLE, Entry, Machine, Office, above, below
from tests.engine.versions import FOLDER, GONE, agreed, file, heads, ref

LONG = bool(os.environ.get("P2PSYNC_LONG"))
MANY = settings(max_examples=200_000 if LONG else 200, deadline=None, suppress_health_check=[HealthCheck.too_slow])

# ---- the table, told a second time: what each row's views are, in words of its own

Views = tuple[State | None, Agreed | None, Heads, bool]


def _winner(found: Heads) -> State:
    """The state of the version that stays, by the rule that heads.py tells in words."""
    rank = {Folder: 0, File: 1, Gone: 2}
    rows = [(rank[type(one.state)], one.passed_over, *_held(one.state), one.state) for one in found.all]
    return min(rows, key=lambda row: row[:-1])[-1]


def _held(state: State) -> tuple[bytes, bool]:
    return (state.content.digest, state.executable) if isinstance(state, File) else (b"", False)


def _row(observed: State | None, known: Agreed | None, found: Heads, single: bool) -> tuple[str, type[Decision]]:
    """The row of reconcile's table that these views are in, and what it says."""
    here: State = observed or GONE
    if not found.all:
        return ("nothing, none", Nothing) if observed is None else ("something, none", Record)
    winner, refs = _winner(found), {one.ref for one in found.all}
    if here == winner:
        beside = {one.ref for one in found.all if isinstance(one.state, File) and not same_bytes(one.state, winner)}
        beside |= {one.ref for one in found.all if isinstance(one.state, Folder) and not isinstance(winner, Folder)}
        is_agreed = known is not None and (known.state, known.refs, known.seen) == (winner, refs - beside, refs)
        return ("= winner, = covered", Nothing) if is_agreed else ("= winner, other", Adopt)
    if single and observed is None and known is not None and not isinstance(known.state, Gone):
        return "nothing, a file", Missing
    moved = known is None or not refs <= known.seen
    if known is not None and here == known.state:
        return ("= agreed, moved" if observed is not None else "nothing, none"), Apply
    if observed is None:
        if known is None:
            return "nothing, none", Apply
        return ("nothing, something, moved", Apply) if moved else ("nothing, something, as agreed", Record)
    if moved and any(same_bytes(one.state, here) for one in found.all):
        return "= another head, moved", Apply
    return ("changed, moved", Record) if moved else ("changed, as agreed", Record)


ROWS = {
    ("nothing, none", Nothing),
    ("something, none", Record),
    ("= winner, = covered", Nothing),
    ("= winner, other", Adopt),
    ("nothing, a file", Missing),
    ("= agreed, moved", Apply),
    ("nothing, none", Apply),
    ("nothing, something, as agreed", Record),
    ("nothing, something, moved", Apply),
    ("changed, as agreed", Record),
    ("= another head, moved", Apply),
    ("changed, moved", Record),
}


class Reached:
    """Counts the rows that were reached, and holds each decision against its row."""

    def __init__(self) -> None:
        self.rows: Counter[tuple[str, type[Decision]]] = Counter()

    def __call__(self, observed: State | None, known: Agreed | None, found: Heads, single: bool, decision: Decision) -> None:
        row = _row(observed, known, found, single)
        assert type(decision) is row[1], (row, decision)
        self.rows[row] += 1


# ---- what must hold in the end


def shown(machine: Machine, path: str) -> set[Content]:
    """The contents that a machine has at the path or shows beside it."""
    found = machine.heads(path)
    versions = (found.winner, *found.others) if found.all else ()
    return {head.state.content for head in versions if isinstance(head.state, File)}


def check_the_end(office: Office) -> None:
    """Everybody has exchanged everything: they agree, are silent, and have lost and invented nothing.

    Where a file is to be in what is a file for everybody (its folder was replaced by somebody who knew of one of two versions), that is
    shown and nothing is done.
    """
    first = office.machines[0]
    for path in office.paths:
        found = first.heads(path)
        standing = None if not found.all or isinstance(found.winner.state, Gone) else found.winner.state
        for machine in office.machines:
            decision = machine.decide(path).decision
            assert machine.known.keys() == first.known.keys() and machine.heads(path) == found
            assert machine.disk.get(path) == machine.observed.get(path), "what stands there is known"
            if isinstance(decision, Missing):
                assert path == SINGLE and path not in machine.disk
                continue
            if path in machine.in_the_way:
                assert all(path in one.in_the_way and isinstance(one.disk[str(above(path))], File) for one in office.machines)
                continue
            assert isinstance(decision, Nothing), f"machine {machine.number} still wants to {decision} “{path}”"
            assert machine.disk.get(path) == standing
        seen = shown(first, path)
        assert office.judge.must_be_shown(path, first.known.keys()) <= seen, f"a version of “{path}” vanished"
        if office.judge.exact:
            assert seen <= office.judge.may_be_shown(path), f"“{path}” shows a version that somebody replaced"
        kinds = [head.state for head in found.all]
        if len({state.content for state in kinds if isinstance(state, File)}) < 2:
            assert not [one for one in found.others if isinstance(found.winner.state, File)], "the same bytes never conflict"


def in_order(number: int) -> Callable[[list[int]], list[int]]:
    """A way to shuffle that is the same each time."""
    chance = random.Random(number)

    def shuffled(what: list[int]) -> list[int]:
        chance.shuffle(what)
        return what

    return shuffled


# ---- everything in any order

EVENTS = (
    *["save"] * 8, "save an old one", "save as executable", "save a folder", "delete", "delete", "rename",
    *["look"] * 6, *["plan"] * 5, *["do"] * 14, "fail", "stop half way", "crash",
    *["learn"] * 8, "learn a little", "learn a little", "away", "back", "lose", "resolve", "resolve",
    "back up", "restore the ledger", "restore the disk",
)  # fmt: skip
Event = tuple[int, int, int, int]
SMALL = st.integers(0, 3)
SCHEDULES = st.lists(st.tuples(st.integers(0, len(EVENTS) - 1), SMALL, SMALL, SMALL), max_size=200 if LONG else 60)


def event(what: str, machine: int = 0, path: str | int = 0, third: int = 0) -> Event:
    """An event for an @example."""
    return EVENTS.index(what), machine, PATHS.index(path) if isinstance(path, str) else path, third


def play(office: Office, schedule: list[Event]) -> None:
    """Let all of this happen, in this order."""
    for number, (kind, a, b, c) in enumerate(schedule):
        machine = office.machines[a % len(office.machines)]
        path = PATHS[b]
        match EVENTS[kind]:
            case "save":
                machine.save(path, file(f"{number}"))
            case "save an old one":
                machine.save(path, file(f"old {c}"))
            case "save as executable":
                standing = machine.disk.get(path)
                machine.save(path, File(standing.content, not standing.executable) if isinstance(standing, File) else file("run", True))
            case "save a folder" if path != SINGLE:
                machine.delete(path)
                machine.save(path, FOLDER)
            case "delete":
                machine.delete(path)
            case "rename" if SINGLE not in (path, PATHS[c]) and not PATHS[c].startswith(path):
                machine.rename(path, PATHS[c])
            case "look":
                machine.look([path] if c else ())
            case "plan":
                machine.plan()
            case "do" | "fail" | "stop half way":
                waiting = sorted(machine.jobs)
                if waiting:
                    one = waiting[(b + c) % len(waiting)]
                    machine.carry_out(one, fails=EVENTS[kind] == "fail", noted=EVENTS[kind] != "stop half way")
            case "crash":
                machine.crash()
            case "learn":
                machine.learn(office.machines[b % len(office.machines)])
            case "learn a little":
                machine.learn(office.machines[b % len(office.machines)], c + 1)
            case "away":
                machine.away = True
            case "back":
                machine.away = False
            case "lose":
                machine.lose()
            case "resolve":
                machine.resolve(path, c)
            case "back up":
                machine.back_up()
            case "restore the ledger":
                machine.restore_ledger()
            case "restore the disk":
                machine.restore_disk()


def begun(machines: int, salt: int, begin: int, watch: Reached | None = None) -> Office:
    """An office in which one machine had files before, and the others none, other ones or the same."""
    office = Office(machines, salt, watch)
    for machine in office.machines:
        for path in PATHS:
            if begin & 1 << (machine.number % 2):
                machine.save(path, FOLDER if path == "clients" else file(f"{path} {begin // 4 * machine.number}"))
    if begin & 8:
        office.settle(lambda order: order)
    return office


@MANY
@given(st.integers(2, 4), st.integers(0, 30), st.integers(0, 15), SCHEDULES, st.integers(0, 1000))
@example(2, 0, 1, [event("look"), event("lose")], 0)
@example(2, 0, 1, [event("look"), event("lose"), event("save", 0, "note")], 0)
@example(2, 0, 11, [event("save", 0, "clients"), event("save", 1, "clients")], 0)
@example(2, 0, 0, [event("save", 1, "note"), event("save a folder", 0, "note"), event("look", 1), event("save a folder", 1, "note")], 0)
@example(2, 0, 9, [event("save"), event("back up", 1), event("save", 1), event("restore the disk", 1)], 0)
@example(
    2,
    0,
    9,
    [event("save a folder", 0, "clients"), event("look"), event("plan"), event("save", 0, "clients/durand"), event("do")],
    0,
)
def test_whatever_happens_in_whatever_order_they_agree_and_lose_nothing(
    machines: int, salt: int, begin: int, schedule: list[Event], order: int
) -> None:
    office = begun(machines, salt, begin, Reached())
    play(office, schedule)
    assert office.settle(in_order(order)) < 20
    check_the_end(office)


def may_be_met_late(office: Office) -> set[str]:
    """The paths where somebody's file, which is not recorded yet, equals a version that somebody recorded.

    Who hears of that version before it is replaced has the same version, and goes along; who hears of both at once has a file that nobody
    who replaced it knew of, and keeps it. What is heard when is a cause, so both are right. Whatever hangs on that file is as it is.
    """
    recorded = {
        (entry.path, entry.state.content) for one in office.machines for entry in one.known.values() if isinstance(entry.state, File)
    }
    found = {
        path
        for one in office.machines
        for path, state in one.disk.items()
        if isinstance(state, File)
        and (path, state.content) in recorded
        and (path not in one.agreed or not same_bytes(one.agreed[path].state, state))
    }
    return found | {folder for path in found if (folder := above(path))} | {inside for path in found for inside in below(path)}


@pytest.mark.parametrize("is_heard_of_first", [False, True])
def test_a_file_that_was_there_before_goes_with_its_equal_only_if_it_had_met_it(is_heard_of_first: bool) -> None:
    """Both have the same file; the one records and deletes it, and the other has recorded nothing yet."""
    office = begun(2, 0, 3)
    anna, marie = office.machines
    anna.look(["note"])
    anna.plan()
    _do(anna)
    if is_heard_of_first:
        marie.learn(anna)
        marie.look()
        marie.plan()
        _do(marie)
    anna.delete("note")
    assert may_be_met_late(office) >= ({"note"} if not is_heard_of_first else set())
    office.settle(lambda order: order)
    check_the_end(office)
    assert shown(marie, "note") == (set() if is_heard_of_first else {file("note 0").content})


@MANY
@example(2, 0, 3, [event("look"), event("save", 0, "clients"), event("plan"), event("do", 0, "clients/durand", 3)], (0, 1))
@example(2, 0, 15, [event("save", 0, "clients"), event("lose", 1)], (0, 1))
@example(2, 0, 9, [event("save", 0, "clients"), *[event("save as executable", 1, "clients/durand")] * 2], (0, 0))
@given(st.integers(2, 4), st.integers(0, 30), st.integers(0, 15), SCHEDULES, st.tuples(st.integers(0, 1000), st.integers(0, 1000)))
def test_who_comes_first_in_the_end_decides_nothing(
    machines: int, salt: int, begin: int, schedule: list[Event], orders: tuple[int, int]
) -> None:
    """Whoever tells first, and whatever is done first: the same versions remain."""
    ends = []
    for order in orders:
        office = begun(machines, salt, begin)
        play(office, schedule)
        late = may_be_met_late(office)
        office.settle(in_order(order))
        first = office.machines[0]
        ends.append({path: shown(first, path) for path in PATHS if path not in late})
    assert ends[0] == ends[1]


# ---- views that no history produced

STATES: list[State] = [file("x"), file("y"), file("z"), file("x", True), FOLDER, GONE]
STATE = st.integers(0, len(STATES) - 1).map(STATES.__getitem__)
RECORDS = st.lists(st.tuples(st.sampled_from(PATHS), STATE, st.integers(0, 8), st.integers(0, 15)), max_size=10)
VIEWS = st.lists(
    st.tuples(st.sampled_from(PATHS), st.none() | STATE, st.none() | STATE, st.none() | STATE, st.integers(0, 63), st.integers(0, 63)),
    max_size=6,
)
MACHINES = st.lists(st.tuples(st.integers(0, 10), VIEWS), min_size=2, max_size=4)


def from_nowhere(salt: int, records: list[tuple[str, State, int, int]], machines: list[tuple[int, list]]) -> Office:
    """An office with any records, disks and ledgers, as restored backups may leave them."""
    office = Office(len(machines), salt, Reached())
    office.judge.exact = False
    made: list[Entry] = []
    for path, state, knew, over in records:
        past = made[:knew]
        if path == SINGLE and not isinstance(state, File):
            continue
        here = [entry.ref for entry in past if entry.path == path]
        parents = frozenset(one for at, one in enumerate(here) if over & 1 << at % 4)
        made.append(Entry(office.next_ref(), path, state, parents, frozenset(entry.ref for entry in past)))
    for machine, (knows, views) in zip(office.machines, machines, strict=True):
        machine.known = {entry.ref: entry for entry in made[:knows]}
        for path, disk, observed, known, refs, seen in views:
            if path != SINGLE or isinstance(disk, File):
                machine.disk = _whole(machine.disk, path, disk)
            if (path != SINGLE or isinstance(observed, File)) and isinstance(observed, File | Folder):
                machine.observed[path] = observed
            if known is not None and (path != SINGLE or isinstance(known, File)):
                here = [entry.ref for entry in made if entry.path == path]
                agreed_refs = frozenset(one for at, one in enumerate(here) if refs & 1 << at % 6)
                machine.agreed[path] = Agreed(known, agreed_refs, agreed_refs | {one for at, one in enumerate(here) if seen & 1 << at % 6})
        machine.crash()
    for machine in office.machines:
        machine.learn(office.machines[0], 0)
    return office


def _whole(disk: dict[str, State], path: str, state: State | None) -> dict[str, State]:
    """The disk with ``state`` at ``path``, in which nothing stands in a file or in nothing."""
    disk = {**disk, path: state} if isinstance(state, File | Folder) else {other: one for other, one in disk.items() if other != path}
    if not isinstance(disk.get("clients"), Folder):
        disk.pop("clients/durand", None)
    return disk


@MANY
@example(
    0,
    [("clients/durand", file("x"), 0, 0)],
    [
        (0, []),
        (
            1,
            [
                ("note", None, file("x"), None, 0, 0),
                ("clients", None, file("x"), None, 0, 0),
                ("clients/durand", None, None, file("x"), 0, 1),
            ],
        ),
    ],
    0,
)
@given(st.integers(0, 30), RECORDS, MACHINES, st.integers(0, 1000))
def test_from_any_views_they_agree_and_what_stood_there_is_a_version(
    salt: int, records: list[tuple[str, State, int, int]], machines: list[tuple[int, list]], order: int
) -> None:
    office = from_nowhere(salt, records, machines)
    stood = [(machine, path, state) for machine in office.machines for path, state in machine.disk.items()]
    before = [dict(machine.agreed) for machine in office.machines]
    assert office.settle(in_order(order)) < 20
    check_the_end(office)
    final = office.machines[0].known.values()
    for machine, path, state in stood:
        was = before[machine.number].get(path)
        versions = {entry.state.content for entry in final if entry.path == path and isinstance(entry.state, File)}
        assert not isinstance(state, File) or state.content in versions or (was is not None and was.state == state)


# ---- every case of a small world


def _views() -> Iterator[Views]:
    """Every way in which three versions, two of them by others, can stand to what is observed and agreed."""
    states: list[State] = [file("a"), file("b"), file("b", True), FOLDER, GONE]
    found = [heads(*pairs) for size in range(3) for refs in ([1, 2], [2, 3]) for pairs in _pairs(refs[:size], states)]
    for one, single in itertools.product({tuple(h.all): h for h in found}.values(), (False, True)):
        if single and not all(isinstance(head.state, File) for head in one.all):
            continue
        knowns = [None, *(agreed(s, refs, seen) for s in states for refs, seen in AGREED if not single or isinstance(s, File))]
        for observed, known in itertools.product([None, *states[:3], *([] if single else [FOLDER])], knowns):
            yield observed, known, one, single


AGREED: list[tuple[list[int], list[int]]] = [([1], [1]), ([2], [2]), ([2], [1, 2]), ([1, 2], [1, 2]), ([2, 3], [2, 3]), ([3], [2, 3])]


def _pairs(refs: list[int], states: list[State]) -> Iterator[tuple[tuple[int, State], ...]]:
    for chosen in itertools.product(states, repeat=len(refs)):
        yield tuple(zip(refs, chosen, strict=True))


def test_every_row_of_the_table_is_met_and_names_decide_nothing() -> None:
    """Each view is decided as its row says; with the entries named in another order, which clocks decide, the decision is the same.

    With the contents changed for each other every row is met again.
    """
    reached = Reached()
    mirrored = Reached()
    for observed, known, found, single in _views():
        decision = reconcile(observed, known, found, single=single)
        reached(observed, known, found, single, decision)
        backwards = Heads.of([Head(_back(one.ref), one.state, one.passed_over) for one in found.all])
        again = known and Agreed(known.state, frozenset(map(_back, known.refs)), frozenset(map(_back, known.seen)))
        assert _decided(reconcile(observed, again, backwards, single=single), _back) == _decided(decision)
        here, then = observed and _swapped(observed), known and Agreed(_swapped(known.state), known.refs, known.seen)
        swapped = Heads.of([Head(one.ref, _swapped(one.state), one.passed_over) for one in found.all])
        mirrored(here, then, swapped, single, reconcile(here, then, swapped, single=single))
    assert reached.rows.keys() == mirrored.rows.keys() == ROWS
    assert min(reached.rows.values()) >= 10


def _swapped(state: State) -> State:
    """a for b and b for a."""
    if not isinstance(state, File):
        return state
    return File((B if state.content == A.content else A).content, state.executable)


A, B = file("a"), file("b")


def _back(one: Ref) -> Ref:
    return ref(4 - int.from_bytes(one.record, "big"))


def _decided(decision: Decision, name: Callable[[Ref], Ref] = lambda one: one) -> tuple:
    """A decision in a form that can be compared; of equal versions it may be either that is brought."""

    def named(refs: Iterable[Ref]) -> frozenset[Ref]:
        return frozenset(map(name, refs))

    match decision:
        case Record(state, parents):
            return Record, state, named(parents)
        case Adopt(goal) | Apply(_, goal):
            return type(decision), goal.state, named(goal.refs), named(goal.seen)
    return (type(decision),)


DEEDS: list[State | None] = [None, file("b"), file("c"), file("a", True), FOLDER, GONE]


def _deed(machine: Machine, path: str, state: State | None) -> None:
    if isinstance(state, Gone):
        machine.delete(path)
    elif state is not None:
        machine.save(path, state)


def _do(me: Machine) -> None:
    for path in sorted(me.jobs):
        me.carry_out(path)


def _learn(me: Machine) -> None:
    for other in me.office.machines:
        me.learn(other)


Step = Callable[[Machine, str, State | None], object]
LOOKS_FIRST: tuple[Step, ...] = (
    _deed,
    lambda me, *_: (me.look(), me.plan()),
    lambda me, *_: _do(me),
    lambda me, *_: (_learn(me), me.plan()),
    lambda me, *_: _do(me),
)
LEARNS_FIRST: tuple[Step, ...] = (
    _deed,
    lambda me, *_: _learn(me),
    lambda me, *_: (me.look(), me.plan()),
    lambda me, *_: _do(me),
    lambda me, *_: (me.plan(), _do(me)),
)
IS_INTERRUPTED: tuple[Step, ...] = (
    lambda me, *_: (_learn(me), me.plan()),
    _deed,
    lambda me, *_: _do(me),
    lambda me, *_: (me.look(), me.plan()),
    lambda me, *_: _do(me),
)
MANNERS = (LOOKS_FIRST, LEARNS_FIRST, IS_INTERRUPTED)
ORDERS = [turns for turns in itertools.product((0, 1), repeat=10) if sum(turns) == 5]
"""In which order two machines take five steps each: 252."""


class Duel:
    """Two machines with a common past do one thing each, and a third may have done something before."""

    def __init__(self, path: str, base: str | None, salt: int, before: str | None, watch: Reached) -> None:
        self._path, self._base, self._salt, self._before, self._watch = path, base, salt, before, watch

    def play(self, deeds: Sequence[State | None], manners: Sequence[tuple[Step, ...]], turns: Sequence[int]) -> list:
        """Take the steps in this order; returns how both see the path in the end."""
        path = self._path
        office = Office(3, self._salt, self._watch, (path,))
        first, second, third = office.machines
        if self._base is not None:
            first.save(path, file(self._base))
            office.settle(lambda order: order)
        if self._before is not None:
            third.save(path, file(self._before))
            third.look()
            third.plan()
            _do(third)
        steps = [iter(manner) for manner in manners]
        for who in turns:
            next(steps[who])(office.machines[who], path, deeds[who])
        assert office.settle(lambda order: order) < 10
        check_the_end(office)
        return [(machine.disk.get(path), shown(machine, path)) for machine in (first, second)]


def test_two_machines_in_every_order_and_the_other_way_round() -> None:
    """Each case has its mirror image, in which the one does what the other did: it ends the other way round."""
    reached: list[Reached] = [Reached(), Reached()]
    first = [turns for turns in ORDERS if turns[0] == 0]
    orders = first if LONG else first[::63]
    pairs = list(itertools.product(DEEDS, repeat=2) if LONG else itertools.combinations_with_replacement(DEEDS, 2))
    pasts = [("a", None, 0), ("a", None, 1), ("a", "c", 0), ("a", "c", 1), (None, None, 0)]
    for path, (base, before, salt) in itertools.product((SINGLE, "note"), pasts):
        duels = [Duel(path, base, salt, before, one) for one in reached]
        for deeds, manners, turns in itertools.product(pairs, itertools.product(MANNERS, repeat=2), orders):
            if path != SINGLE or FOLDER not in deeds:
                one = duels[0].play(deeds, manners, turns)
                assert one == duels[1].play(deeds[::-1], manners[::-1], tuple(1 - who for who in turns))[::-1]
    for counted in reached:
        assert counted.rows.keys() == ROWS, ROWS - counted.rows.keys()
