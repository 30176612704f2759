"""What a daemon is killed in: each kind of work once, told so that it can be done again and again with the kill one step later."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from tests.real import claims
from tests.real.iosteps import How, Step
from tests.real.machines import files_below, version
from tests.real.powercut import LoopDisk
from tests.real.victims import BOOKS, Machine, Pair, Watching, save
from tests.story.desks import until

MANY_CHUNKS = 2 * 1024 * 1024
"""Some thirty chunks."""
STAGED = 65 * 1024 * 1024
"""More than what goes through the vault: it is collected beside its place."""

TRIES = 3
"""So often a step is gone for that is not reached."""


@dataclass(frozen=True)
class Scenario:
    """``prepare`` brings both to rest before the act, ``act`` begins it, ``check`` is for what must be so of the bytes afterwards."""

    name: str
    victim: str
    prepare: Callable[[Pair, int], None]
    act: Callable[[Pair, int], None]
    check: Callable[[Pair, int], None]
    always: tuple[str, ...] = ()
    attached: tuple[str, ...] = ("compta.cre", "recus")
    renew: int = 40
    """After so many turns on new machines."""


@dataclass
class Outcome:
    """What became of one kill that was to come at the step ``wanted``; ``step`` is where it came, None where it was not reached."""

    wanted: Step
    how: How
    step: Step | None = None
    resent: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


def content(turn: int, size: int = 20_000, by: str = "") -> bytes:
    """What is saved in this turn: a version that proves by itself that it is whole, of bytes that do not compress beyond a certain size."""
    number = turn * 10 + len(by)
    if size < 100_000:
        return version(number, size + turn)
    import hashlib

    body = random.Random(f"{turn} {by}").randbytes(size)
    return hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def nothing(pair: Pair, turn: int) -> None:
    """Nothing is to be prepared, or checked beyond what always is."""


# ---- receiving


def saves(name: str, size: int = 20_000, by: str = "other") -> Callable[[Pair, int], None]:
    """Somebody saves."""

    def act(pair: Pair, turn: int) -> None:
        save(getattr(pair, by).folder / name.format(turn=turn), content(turn, size))

    return act


def holds(name: str, size: int = 20_000) -> Callable[[Pair, int], None]:
    """Both have it."""

    def check(pair: Pair, turn: int) -> None:
        for desk in (pair.anna, pair.bruno):
            assert (desk.folder / name.format(turn=turn)).read_bytes() == content(turn, size), f"{desk.person} has another version"

    return check


def old_is_kept(name: str) -> Callable[[Pair, int], None]:
    """As ``holds``, and what was replaced can be brought back, to the byte.

    After a power cut a save that nobody made durable, its program neither, may be gone: then it was never recorded, and the one before
    it stands on both sides.
    """

    def check(pair: Pair, turn: int) -> None:
        before, sizes = pair.notes.get("stood"), {v.get("size") for v in pair.victim.versions(name)}
        if pair.disk is not None and before is not None and len(content(turn)) not in sizes:
            assert [(desk.folder / name).read_bytes() for desk in (pair.anna, pair.bruno)] == [before] * 2
            return
        holds(name)(pair, turn)
        pair.notes["stood"] = content(turn)
        if before is not None:
            found = next(v for v in pair.victim.versions(name) if v.get("size") == len(before))
            to = pair.victim.place / "brought back"
            pair.victim.does("restore", BOOKS, name, "--version", str(found["version"]), "--to", to)
            assert to.read_bytes() == before, "the replaced version came back as something else"
            to.unlink()

    return check


def deletes(pair: Pair, turn: int) -> None:
    (pair.other.folder / f"recus/gone {turn}").unlink()


def before_deletion(pair: Pair, turn: int) -> None:
    save(pair.other.folder / f"recus/gone {turn}", content(turn))
    pair.other.until("it is recorded", lambda: pair.other.versions(f"recus/gone {turn}"))
    pair.rest()


def is_deleted(pair: Pair, turn: int) -> None:
    for desk in (pair.anna, pair.bruno):
        assert not (desk.folder / f"recus/gone {turn}").exists(), f"{desk.person} has it again"
    assert [v["act"] for v in pair.victim.versions(f"recus/gone {turn}")] == ["delete", "save"]


def before_renaming(pair: Pair, turn: int) -> None:
    folder = pair.other.folder / f"recus/d {turn}"
    for name in ("one", "two", "sub/three"):
        save(folder / name, content(turn * 3 + len(name)))
    pair.other.until("it is recorded", lambda: pair.other.versions(f"recus/d {turn}/sub/three"))
    pair.rest()


def renames(pair: Pair, turn: int) -> None:
    (pair.other.folder / f"recus/d {turn}").rename(pair.other.folder / f"recus/e {turn}")


def is_renamed(pair: Pair, turn: int) -> None:
    for desk in (pair.anna, pair.bruno):
        assert not (desk.folder / f"recus/d {turn}").exists(), f"{desk.person} has the old name again"
        for name in ("one", "two", "sub/three"):
            assert (desk.folder / f"recus/e {turn}" / name).read_bytes() == content(turn * 3 + len(name))


# ---- conflicts


def disagree(pair: Pair, turn: int) -> None:
    """Both save, neither knowing of the other; the other's comes as soon as its process goes on."""
    for conflict in pair.victim.get("/v1/conflicts")["conflicts"]:
        pair.victim.does("resolve", BOOKS, conflict["name"], "--keep", "mine")
    pair.rest()
    pair.other.signal(signal.SIGSTOP)
    save(pair.victim.folder / "compta.cre", content(turn, by="Bruno"))
    size = len(content(turn, by="Bruno"))
    pair.victim.until("it is recorded", lambda: pair.victim.versions("compta.cre")[0].get("size") == size)
    save(pair.other.folder / "compta.cre", content(turn, by="Anna"))


def goes_on(pair: Pair, turn: int) -> None:
    pair.other.signal(signal.SIGCONT)


def both_are_shown(pair: Pair, turn: int) -> None:
    for desk in (pair.anna, pair.bruno):
        (conflict,) = desk.get("/v1/conflicts")["conflicts"]
        assert conflict["name"] == "compta.cre" and len(conflict["versions"]) == 2
        standing = sorted(path.read_bytes() for path in desk.folder.glob("compta*.cre"))
        assert standing == sorted([content(turn, by="Bruno"), content(turn, by="Anna")]), f"{desk.person} does not have both versions"


def in_conflict(pair: Pair, turn: int) -> None:
    disagree(pair, turn)
    goes_on(pair, turn)
    for desk in (pair.anna, pair.bruno):
        desk.until("the conflict is shown", lambda desk=desk: desk.mandate(BOOKS).get("conflicts"))  # type: ignore[misc]
    pair.rest()


def resolves(pair: Pair, turn: int) -> None:
    pair.victim.says("resolve", BOOKS, "compta.cre", "--keep", "mine")


def is_resolved(pair: Pair, turn: int) -> None:
    if pair.victim.mandate(BOOKS)["conflicts"]:  # it came to nothing, and the person does it again
        pair.victim.does("resolve", BOOKS, "compta.cre", "--keep", "mine")
        pair.rest()
    for desk in (pair.anna, pair.bruno):
        assert [p.read_bytes() for p in desk.folder.glob("compta*.cre")] == [content(turn, by="Bruno")], f"{desk.person} has something else"


# ---- acts


def with_a_file(pair: Pair, turn: int) -> None:
    save(pair.victim.folder / f"new {turn}.cre", content(turn))


def attaches(pair: Pair, turn: int) -> None:
    pair.victim.says("attach", BOOKS, pair.victim.folder / f"new {turn}.cre")


def is_attached(pair: Pair, turn: int) -> None:
    name = f"new {turn}.cre"
    if not pair.victim.attachment(BOOKS, name):
        pair.victim.does("attach", BOOKS, pair.victim.folder / name)
        pair.other.until("it has come", lambda: (pair.other.folder / name).exists())
        pair.rest()
    holds("new {turn}.cre")(pair, turn)


def before_restoring(pair: Pair, turn: int) -> None:
    for number in (turn * 2, turn * 2 + 1):
        save(pair.victim.folder / "compta.cre", content(number))
        size = len(content(number))
        pair.victim.until("it is recorded", lambda size=size: pair.victim.versions("compta.cre")[0].get("size") == size)  # type: ignore[misc]
    pair.rest()
    pair.notes["old"] = pair.victim.versions("compta.cre")[1]["version"]


def restores(pair: Pair, turn: int) -> None:
    pair.victim.says("restore", BOOKS, "compta.cre", "--version", str(pair.notes["old"]))


def is_restored(pair: Pair, turn: int) -> None:
    if pair.victim.versions("compta.cre")[0]["act"] != "restore":
        assert (pair.victim.folder / "compta.cre").read_bytes() == content(turn * 2 + 1)
        pair.victim.does("restore", BOOKS, "compta.cre", "--version", str(pair.notes["old"]))
        pair.victim.until("it is back", lambda: (pair.victim.folder / "compta.cre").read_bytes() == content(turn * 2))
        pair.rest()
    for desk in (pair.anna, pair.bruno):
        assert (desk.folder / "compta.cre").read_bytes() == content(turn * 2)


def other_books(turn: int) -> str:
    return f"Books {turn}"


def with_other_books(pair: Pair, turn: int) -> None:
    save(pair.anna.place / other_books(turn) / "a.cre", content(turn))


def creates(pair: Pair, turn: int) -> None:
    name = other_books(turn)
    pair.anna.says("create", name, pair.anna.place / name / "a.cre", "--folder", pair.anna.place / name)


def is_created(pair: Pair, turn: int) -> None:
    name = other_books(turn)
    if not pair.anna.mandate(name):
        creates(pair, turn)
    if not pair.anna.attachment(name, "a.cre"):
        pair.anna.does("attach", name, pair.anna.place / name / "a.cre")
    pair.anna.until("it is recorded", lambda: pair.anna.versions("a.cre", name))
    pair.anna.settled()
    assert pair.anna.mandate(name)["state"] == "local"
    assert (pair.anna.place / name / "a.cre").read_bytes() == content(turn), "the file is not what it was"


def created(pair: Pair, turn: int) -> None:
    with_other_books(pair, turn)
    creates(pair, turn)
    is_created(pair, turn)


def shares(pair: Pair, turn: int) -> None:
    pair.anna.says("share", other_books(turn))


def is_shared(pair: Pair, turn: int) -> None:
    if pair.anna.mandate(other_books(turn))["state"] != "shared":
        pair.anna.does("share", other_books(turn))
    ready_to_subscribe(pair, turn)
    subscribes(pair, turn)
    is_subscribed(pair, turn)


def ready_to_subscribe(pair: Pair, turn: int) -> None:
    name = other_books(turn)
    pair.notes["ticket"] = pair.ticket(name)


def before_subscribing(pair: Pair, turn: int) -> None:
    created(pair, turn)
    pair.anna.does("share", other_books(turn))
    ready_to_subscribe(pair, turn)


def subscribes(pair: Pair, turn: int) -> None:
    pair.bruno.says("subscribe", pair.notes["ticket"], "--as", "Bruno")


def is_subscribed(pair: Pair, turn: int) -> None:
    """Either it goes on by itself, or the ticket can be used again."""
    name = other_books(turn)
    if not pair.bruno.mandate(name) and not pair.bruno.status()["problems"]:
        pair.bruno.does("subscribe", pair.notes["ticket"], "--as", "Bruno")
    pair.bruno.until("the mandate has opened", lambda: pair.bruno.mandate(name))
    pair.rest(name)
    assert not (faults := pair.faults(name)), faults
    assert (pair.bruno.place / name / "a.cre").read_bytes() == content(turn)


# ---- the start


def while_dead(pair: Pair, turn: int) -> None:
    pair.victim.kill()
    save(pair.other.folder / "compta.cre", content(turn))
    save(pair.victim.folder / f"recus/new {turn}", content(turn))
    size = len(content(turn))
    pair.other.until("it is recorded", lambda: pair.other.versions("compta.cre")[0].get("size") == size)


def starts(pair: Pair, turn: int) -> None:
    pair.victim.up()
    until("it answers or is dead", lambda: not pair.victim.alive or pair.victim.socket.exists())


def is_all_there(pair: Pair, turn: int) -> None:
    for name in ("compta.cre", f"recus/new {turn}"):
        holds(name)(pair, turn)


def without_a_home(pair: Pair, turn: int) -> None:
    """Neither has one: to the other's, she would be somebody who is gone."""
    pair.notes["stood"] = {desk: people_s(desk.place) for desk in (pair.anna, pair.bruno)}
    for desk in (pair.anna, pair.bruno):
        desk.kill()
        shutil.rmtree(desk.state)
    pair.other.up().answers()


def people_s(place: Path) -> dict[str, bytes]:
    """What people have at a place, homes and witnesses aside."""
    return {name: data for name, data in files_below(place).items() if name.startswith("Books")}


def is_new(pair: Pair, turn: int) -> None:
    """What stood there stands there still, and books can be made, shared and opened on the other machine."""
    for desk, stood in pair.notes["stood"].items():
        assert people_s(desk.place) == stood, f"{desk.person}'s files are not what they were"
    before_subscribing(pair, turn)
    subscribes(pair, turn)
    is_subscribed(pair, turn)


SCENARIOS = [
    Scenario("receive a new small file", "Bruno", nothing, saves("recus/new {turn}"), holds("recus/new {turn}"), ("compta.cre",)),
    Scenario("receive a replacement", "Bruno", nothing, saves("compta.cre"), old_is_kept("compta.cre"), ("compta.cre",)),
    Scenario("receive a deletion", "Bruno", before_deletion, deletes, is_deleted, ("compta.cre",)),
    Scenario("receive a renamed folder", "Bruno", before_renaming, renames, is_renamed, ("compta.cre",)),
    Scenario(
        "receive 2 MiB in chunks",
        "Bruno",
        nothing,
        saves("recus/scan {turn}", MANY_CHUNKS),
        holds("recus/scan {turn}", MANY_CHUNKS),
        ("compta.cre",),
        renew=15,
    ),
    Scenario("receive 65 MiB, resumed", "Bruno", nothing, saves("recus/big", STAGED), holds("recus/big", STAGED), ("compta.cre",), renew=4),
    Scenario("a conflict arrives", "Bruno", disagree, goes_on, both_are_shown, ("compta.cre",)),
    Scenario("record a save", "Anna", nothing, saves("compta.cre", by="victim"), old_is_kept("compta.cre"), ("compta.cre",)),
    Scenario("create", "Anna", with_other_books, creates, is_created, renew=15),
    Scenario("attach", "Anna", with_a_file, attaches, is_attached, ("compta.cre",)),
    Scenario("share", "Anna", created, shares, is_shared, renew=15),
    Scenario("subscribe", "Bruno", before_subscribing, subscribes, is_subscribed, renew=15),
    Scenario("resolve", "Bruno", in_conflict, resolves, is_resolved, ("compta.cre",)),
    Scenario("restore", "Bruno", before_restoring, restores, is_restored, ("compta.cre",)),
    Scenario("restart", "Bruno", while_dead, starts, is_all_there, ("compta.cre",)),
    Scenario("first start", "Anna", without_a_home, starts, is_new, attached=()),
]


# ---- going through them


def opened(scenario: Scenario, top: Path, *, power: bool = False) -> Pair:
    """The two machines at rest, with what the scenario has attached; with ``power``, the victim has a disk whose power can be cut."""
    disk = LoopDisk(top / scenario.victim.lower()) if power else None
    pair = Pair(top, scenario.victim, disk)
    try:
        if scenario.attached:
            save(pair.anna.folder / "compta.cre", content(0))
            save(pair.anna.folder / "recus/first", content(0))
            pair.begin().join(*scenario.attached)
        else:
            pair.begin()
    except BaseException:
        pair.end()
        raise
    return pair


def counted(scenario: Scenario, pair: Pair, turn: int = 1) -> list[Step]:
    """The steps of the scenario when nobody is killed."""
    scenario.prepare(pair, turn)
    pair.victim.steps.begin()
    scenario.act(pair, turn)
    until("it is over", pair.is_over)
    steps = pair.victim.steps.end()
    if scenario.attached:
        pair.rest()
        scenario.check(pair, turn)
    return steps


def kill(scenario: Scenario, pair: Pair, turn: int, wanted: Step, how: How) -> Outcome:
    """One kill, the restart, and whatever is not as it must be then."""
    outcome = Outcome(wanted, how)
    with Watching(pair.victim.folder) as watching:
        try:
            scenario.prepare(pair, turn)
            if pair.disk is not None:
                pair.disk.settle()
            watching.always(*scenario.always)
            outcome.step = pair.struck(lambda: scenario.act(pair, turn), wanted.number, how)
            if outcome.step is not None and pair.disk is not None:
                watching.stop()  # its eyes are on the disk that goes
                pair.disk.cut()
            since = time.monotonic()
            outcome.faults += _at_rest_again(scenario, pair, turn, outcome)
            outcome.seconds = time.monotonic() - since
        except AssertionError as e:
            outcome.faults.append(str(e))
    outcome.faults += watching.faults
    return outcome


def _at_rest_again(scenario: Scenario, pair: Pair, turn: int, outcome: Outcome) -> list[str]:
    faults = []
    if outcome.step is not None:
        faults = claims.immediately(pair.victim.state)
        pair.victim.up().answers()
    if scenario.attached:
        pair.rest()
    if outcome.step is not None:
        outcome.resent = pair.victim.content_bytes("in") + pair.victim.content_bytes("out")
    scenario.check(pair, turn)
    if scenario.attached:
        pair.rest()
        faults += pair.faults()
    return faults


def go_through(
    scenario: Scenario, top: Path, chosen: Callable[[list[Step]], list[tuple[Step, How]]], *, warm: bool = True, power: bool = False
) -> Iterator[Outcome]:
    """Killed at one chosen step after the other; after a fault, and every so often, on new machines.

    A step that was not reached, because there were fewer this time, is tried ``TRIES`` times. ``warm``: the steps are counted the second
    time only. The first is not like the others, the machines have only just met.
    """
    pair, turn = opened(scenario, top / "0", power=power), 0
    try:
        turn = 1 + warm
        if warm:
            counted(scenario, pair, 1)
        points = chosen(counted(scenario, pair, turn))
        for number, (wanted, how) in enumerate(points, 1):
            if number % scenario.renew == 0 or not pair.top.exists():
                pair.end()
                shutil.rmtree(pair.top)
                pair = opened(scenario, top / str(number), power=power)
            for _ in range(TRIES):
                turn += 1
                outcome = kill(scenario, pair, turn, wanted, how)
                if outcome.step is not None or outcome.faults:
                    break
            yield outcome
            if outcome.faults:
                pair.end()
                kept = pair.top.with_name(f"{pair.top.name} fault at {wanted.number} {how.name.lower()}")
                os.rename(pair.top, kept)
                pair = opened(scenario, top / f"{number}+", power=power)
    finally:
        pair.end()


def everything(steps: list[Step]) -> list[tuple[Step, How]]:
    """Before every step, in the middle of each write, after all else and the last: after a write the disk is as before the next step."""
    return [
        (step, how)
        for step in steps
        for how in (How.BEFORE, How.AFTER, How.HALF)
        if how == How.BEFORE or (how == How.HALF) == (step.kind == "write") or (how == How.AFTER and step == steps[-1])
    ]


def distinct(steps: list[Step]) -> list[tuple[Step, How]]:
    """As ``everything``; of a row of equal steps, such as the pages of one commit, the first two, one in the middle and the last."""
    found: list[Step] = []
    for _, equal in groupby(steps, lambda step: (step.call, step.path)):
        row = list(equal)
        found += sorted({*row[:2], row[len(row) // 2], row[-1]})
    return everything(found)


__all__ = ["SCENARIOS", "Machine", "Outcome", "Scenario", "counted", "distinct", "everything", "go_through", "kill", "opened"]
