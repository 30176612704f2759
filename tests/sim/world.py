"""One simulated run: an office of whole daemons, what befalls it, the judgement at every step, and the peace at the end."""

from __future__ import annotations

import errno
import hashlib
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import trio
import trio.testing

from p2psync.daemon import office as office_module
from p2psync.daemon.mandate import Mandate
from tests.lan.fake_lan import interface
from tests.sim import judge, same
from tests.sim.backup import Backup
from tests.sim.disk import interposed
from tests.sim.judge import Breach, Judge
from tests.sim.machine import RESTART_S, Machine
from tests.sim.net import Net
from tests.sim.people import FOLDER, PLAIN, PLAIN_NAMES, SINGLES, WILD, Known, People
from tests.sim.schedule import PEOPLE, Schedule, Step
from tests.sim.start import Start, taken

T = TypeVar("T")

PEACE_S = 1800.0
"""Seconds of the run's own clock within which all must agree once nothing is in their way."""
SETTLED_S = 20.0
"""So long they agree before it counts."""
QUIET_S = 40.0
"""So long it is seen whether those who agree are silent."""
LOOKED_OVER_S = 700.0
"""Within so long each machine goes through everything of its own accord, and tidies up."""
LONG_EACH = 16
"""One of so many runs is quiet for that long."""
MANDATE = "Dupont SA"


class World:
    """The run of one schedule, below ``place``. ``trace`` tells it step by step."""

    def __init__(self, schedule: Schedule, place: Path) -> None:
        self.schedule, self.place = schedule, place
        self.chance = random.Random(f"world {schedule.seed}")
        self.net = Net(self.chance)
        self.net.slow = schedule.slow
        self.known = Known()
        self.machines = [
            Machine(self.net, place, person, f"10.0.0.{number + 1}", random.Random(f"{person} {schedule.seed}"), schedule.traits[number])
            for number, person in enumerate(PEOPLE[: schedule.machines])
        ]
        self.people = [People(machine, self.known) for machine in self.machines]
        self.judges = [Judge(people, self.known) for people in self.people]
        for people, judged in zip(self.people, self.judges, strict=True):
            people.say = self.say
            people.acting = partial(self._acting, people, judged)
        self.trace: list[str] = []
        self.happened: Counter[str] = Counter()
        self.errors: list[str] = []
        self.ended: dict[str, frozenset[bytes | None]] = {}
        """What stood at each path in the end (None: a folder), and of each conflict the digests of its versions."""
        self.breaches: list[Breach] = []
        self._crashed: set[Machine] = set()
        self._backups: dict[Machine, Backup] = {}
        self._planned: dict[Machine, tuple[int, Step]] = {}
        self._going = True
        self._in_step = False
        self._agreed_at: tuple[object, ...] = ()

    @property
    def digest(self) -> str:
        """Names the whole trace."""
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()[:16]

    def say(self, text: str) -> None:
        """Add to the trace."""
        self.trace.append(f"{trio.current_time():.3f} {text}")

    # ---- the run

    def run(self, start: Start | None = None) -> None:
        """Go through it, beginning with an office that is there already or founding one. Raises: Breach."""
        if start is not None:
            start.lay(self)
        self._play(self._main, start is None, begins_at=start.seconds if start is not None else 0.0)
        self._judge()

    def founded(self) -> Start:
        """Only found the office, and switch it off once all agree."""
        return self._play(self._found_only)

    def _play(self, main: Callable[..., Awaitable[T]], *args: object, begins_at: float = 0.0) -> T:
        with same.repeatable(self.schedule.seed), interposed([m.disk for m in self.machines]), self._listening(), _one_interface():
            return trio.run(main, *args, clock=same.RunClock(begins_at))

    def _judge(self) -> None:
        if self.breaches:
            raise self.breaches[0]
        if self.errors:
            raise Breach(f"a mistake was logged: {self.errors[0]}")

    async def _found_only(self) -> Start:
        async with trio.open_nursery() as nursery:
            await self._switch_on(nursery)
            await self._found()
            for _ in range(2):  # once more, since what was still fresh is read again at the next start
                await self._until_agreed()
                for machine in self.machines:
                    await machine.stop()
                await trio.sleep(RESTART_S / 2)  # until what was open is closed
            seconds = trio.current_time()
            nursery.cancel_scope.cancel()
        self._judge()
        return taken(self, seconds)

    async def _switch_on(self, nursery: trio.Nursery) -> None:
        for machine, judged in zip(self.machines, self.judges, strict=True):
            machine.disk.on_step = self._watching(machine, judged)
            nursery.start_soon(self._keep_alive, machine)
            await self._until_up(machine)

    async def _main(self, founds: bool) -> None:
        try:
            async with trio.open_nursery() as nursery:
                await self._switch_on(nursery)
                if founds:
                    await self._found()
                await trio.sleep(self.chance.choice([0, 1, 5]))
                for machine, skew in zip(self.machines, self.schedule.skews_s, strict=True):
                    machine.skew_ns = skew * 1_000_000_000
                for step in self.schedule.steps:
                    self._judge()
                    await trio.sleep(step.gap_s)
                    self.say(str(step))
                    self.happened[step.kind] += 1
                    await self._do(step, nursery)
                await self._heal()
                await self._peace()
                nursery.cancel_scope.cancel()
        except* Breach as breaches:
            raise _first(breaches) from None

    async def _until_up(self, machine: Machine) -> None:
        while not machine.started.is_set():
            await trio.sleep(0.01)

    async def _keep_alive(self, machine: Machine) -> None:
        """The service manager: a daemon that ended is started again."""
        while True:
            await machine.live()
            self._after_death(machine)
            self.say(f"{machine.person} ended")
            await trio.sleep(RESTART_S)
            async with machine.in_repair:
                self.say(f"{machine.person} starts")

    def _after_death(self, machine: Machine) -> None:
        judged = self.judges[self.machines.index(machine)]
        judged.after_step("at the end")
        judged.after_death()
        if machine in self._crashed:
            self._crashed.discard(machine)
            machine.disk.crash()
            machine.power_cuts += 1
            judged.after_power_cut()
        else:
            machine.disk.lose_process()

    async def _found(self) -> None:
        """Anna makes the mandate; the others join with tickets."""
        anna, *others = self.machines
        first = self.people[0]
        first.places = {FOLDER: anna.files / FOLDER} | {single: anna.files / single for single in SINGLES}
        with first.acting():
            for name in (*PLAIN[:2], *WILD[:3]):
                first.save(self.chance, f"{FOLDER}/{name}")
            for single in SINGLES:
                first.save(self.chance, single)
        made = await anna.ask(
            "POST", "/v1/create", body={"name": MANDATE, "paths": [str(path) for path in first.places.values()], "as": "Anna"}
        )
        assert "refused" not in made, made
        await anna.ask("POST", "/v1/share", mandate=MANDATE)
        for other in others:
            ticket = await anna.ask("POST", "/v1/invite", body={"mandate": MANDATE, "for": other.person})
            joined = await other.ask("POST", "/v1/subscribe", text=ticket["ticket"])
            assert "refused" not in joined, joined

    # ---- steps of the daemons

    def _watching(self, machine: Machine, judged: Judge):  # type: ignore[no-untyped-def]
        def on_step(operation: str, path: str) -> None:
            if self._in_step:
                return
            self._in_step = True
            try:
                self.trace.append(f"{machine.person} {operation} {path}")
                judged.after_step(f"before {operation} {path}")
                if not (operation == "rename" and machine.disk.traits.no_swap):  # the one race that such a disk leaves (store/swap)
                    self._person_in_between(machine)
            except Breach as breach:  # the daemon must not catch it
                self.breaches.append(breach)
            finally:
                self._in_step = False

        return on_step

    def _person_in_between(self, machine: Machine) -> None:
        if machine in self._planned:
            left, step = self._planned[machine]
            if left:
                self._planned[machine] = left - 1, step
                return
            del self._planned[machine]
            chance = random.Random(step.seed)
            self._by_people(machine, chance, lambda people: people.save(chance, f"{FOLDER}/{chance.choice([*PLAIN, *WILD])}"))

    # ---- what befalls them

    async def _do(self, step: Step, nursery: trio.Nursery) -> None:
        machine = self.machines[step.who]
        people = self.people[step.who]
        chance = random.Random(step.seed)
        if step.kind in ("save_slowly", "keep_open"):
            name = chance.choice([*SINGLES, *(f"{FOLDER}/{name}" for name in (*PLAIN, *WILD))])
            nursery.start_soon(getattr(people, step.kind), chance, name)
        elif step.kind.startswith("save"):
            self._save(step.kind, machine, chance, step)
        elif hasattr(people, step.kind):
            self._by_people(machine, chance, lambda people: getattr(people, step.kind)(chance))
        else:
            await getattr(self, f"_{step.kind}")(machine, chance)

    def _save(self, kind: str, machine: Machine, chance: random.Random, step: Step) -> None:
        names = {"save": WILD, "save_plain": PLAIN}.get(kind)
        if kind == "save_in_between":
            self._planned[machine] = chance.randrange(30), step
            return
        name = chance.choice(SINGLES) if names is None else f"{FOLDER}/{chance.choice(names)}"
        self._by_people(machine, chance, lambda people: people.save(chance, name))

    def _by_people(self, machine: Machine, chance: random.Random, act) -> None:  # type: ignore[no-untyped-def]
        people = self.people[self.machines.index(machine)]
        with people.acting():
            act(people)

    @contextmanager
    def _acting(self, people: People, judged: Judge) -> Iterator[None]:
        judged.after_step("before people act")
        with people.machine.disk.program():
            yield
        judged.by_people()

    async def _part(self, machine: Machine, chance: random.Random) -> None:
        for other in self.machines:
            if other is not machine and chance.random() < 0.7:
                self.net.part(machine.address, other.address)

    async def _mend(self, machine: Machine, chance: random.Random) -> None:
        self.net.mend()

    async def _reset(self, machine: Machine, chance: random.Random) -> None:
        self.net.reset(machine.address)

    async def _stop(self, machine: Machine, chance: random.Random) -> None:
        if machine.started.is_set():
            await machine.stop()

    async def _kill(self, machine: Machine, chance: random.Random) -> None:
        machine.disk.kill_at(0, after=False)
        await self._end(machine)

    async def _power_cut(self, machine: Machine, chance: random.Random) -> None:
        self._crashed.add(machine)
        machine.disk.kill_at(0, after=False)
        await self._end(machine)

    async def _end(self, machine: Machine) -> None:
        if machine._scope is not None:
            self.net.reset(machine.address)
            machine._scope.cancel()
            await machine.ended.wait()

    async def _kill_at_step(self, machine: Machine, chance: random.Random) -> None:
        machine.disk.kill_at(chance.randrange(60), after=chance.random() < 0.5)

    async def _power_cut_at_step(self, machine: Machine, chance: random.Random) -> None:
        self._crashed.add(machine)
        machine.disk.kill_at(chance.randrange(60), after=chance.random() < 0.5)

    async def _fault(self, machine: Machine, chance: random.Random) -> None:
        self.known.inexact |= PLAIN_NAMES
        error = chance.choice([errno.EIO, errno.EACCES, errno.ENOSPC])
        machine.disk.fail(error, at=chance.randrange(40), count=chance.choice([1, 1, 3, 20]))

    async def _unreadable(self, machine: Machine, chance: random.Random) -> None:
        """A file, or a folder with all that is in it, cannot be read for a while: its sectors are bad, or its permissions."""
        name = chance.choice([*SINGLES, *(f"{FOLDER}/{name}" for name in (*PLAIN, *WILD))])
        error, lasts_s = chance.choice([errno.EIO, errno.EACCES]), chance.choice([5, 40])
        people = self.people[self.machines.index(machine)]
        where = people.where(name)
        if where is not None and name.count("/") > 1 and chance.random() < 0.5:
            where = where.parent
        if where is None:
            return
        self.known.inexact |= PLAIN_NAMES
        machine.disk.fail(error, at=0, count=1_000_000, where=where)
        machine.hear(where, "touched")
        machine.watcher.doubt(machine.place)
        await trio.sleep(lasts_s)
        machine.disk.mend(where)

    async def _namesakes(self, machine: Machine, chance: random.Random) -> None:
        """Two people who do not hear of each other save files whose names are one on some disks."""
        other = chance.choice([one for one in self.machines if one is not machine])
        self.net.part(machine.address, other.address)
        names = chance.choice([("b.txt", "B.TXT"), ("sub/a", "Sub/a"), ("été.txt", "ÉTÉ.txt")])
        for one, name in zip((machine, other), names, strict=True):
            self._by_people(one, chance, partial(People.save, chance=chance, name=f"{FOLDER}/{name}"))
            await trio.sleep(chance.choice([0.0, 0.5, 3.0]))

    async def _full(self, machine: Machine, chance: random.Random) -> None:
        self.known.inexact |= PLAIN_NAMES  # what could not be recorded was seen by nobody
        machine.disk.full(True)

    async def _unmount(self, machine: Machine, chance: random.Random) -> None:
        """The disk that the attached folder is on goes away, and comes back after a while."""
        people = self.people[self.machines.index(machine)]
        where = people.where(FOLDER)
        if where is None or not where.is_dir() or people.open:
            return
        self.judges[self.machines.index(machine)].after_step("before the disk goes")
        machine.disk.unmount(where)
        machine.watcher.doubt(where)
        await trio.sleep(chance.choice([1, 10, 100]))
        machine.disk.mount(where)
        machine.watcher.doubt(where)

    async def _back_up(self, machine: Machine, chance: random.Random) -> None:
        if not machine.disk.away and not self.people[self.machines.index(machine)].open:
            with machine.disk.looking():
                self._backups[machine] = machine.disk.copy()

    async def _restore_state(self, machine: Machine, chance: random.Random) -> None:
        await self._restore(machine, "state")

    async def _restore_files(self, machine: Machine, chance: random.Random) -> None:
        await self._restore(machine, "files", "mandates")

    async def _restore_both(self, machine: Machine, chance: random.Random) -> None:
        await self._restore(machine, "state", "files", "mandates")

    async def _restore(self, machine: Machine, *folders: str) -> None:
        """Whoever looks after the machine puts back what it held when the backup was made; only its witness stays as it is."""
        people, judged = self.people[self.machines.index(machine)], self.judges[self.machines.index(machine)]
        if machine not in self._backups or machine.disk.away or people.open or not machine.started.is_set():
            return
        async with machine.in_repair:  # nobody starts the daemon meanwhile
            await machine.stop()
            await trio.sleep(RESTART_S / 2)
            before = people.all()
            for folder in folders:
                machine.disk.restore(self._backups[machine], only=folder)
            judged.by_people()
            self.known.note_restored(machine.person, before, people.all())
            self.known.inexact |= PLAIN_NAMES

    async def _deaf(self, machine: Machine, chance: random.Random) -> None:
        machine.deaf = not machine.deaf

    async def _clock(self, machine: Machine, chance: random.Random) -> None:
        machine.skew_ns = chance.choice([0, -315_360_000, 315_360_000, 3600]) * 1_000_000_000

    async def _pause(self, machine: Machine, chance: random.Random) -> None:
        await trio.sleep(chance.choice([10, 40, 120]))

    async def _resolve(self, machine: Machine, chance: random.Random) -> None:
        """Somebody looks at the conflicts and decides about one."""
        if machine.mandate is None:
            return
        found = sorted(judge.conflicts(machine))
        if found:
            keep = chance.choice(["mine", "theirs", "both"])
            path = chance.choice(found)
            self.judges[self.machines.index(machine)].exempt.add(path)
            seen = judge.conflicts(machine)[path]
            answer = await machine.ask("POST", "/v1/resolve", mandate=MANDATE, name=path, keep=keep)
            self.say(f"resolve {path} {keep}: {answer.get('refused', 'done')}")
            self.known.deeds.append(f"{machine.person} resolved {path} {keep} {sorted(seen)}: {'refused' in answer}")

    # ---- the end

    async def _heal(self) -> None:
        """Everything that was in the way is out of it."""
        self.net.mend()
        self.net.slow = False
        for machine in self.machines:
            machine.deaf = False
            machine.disk.full(False)
            machine.disk.heal()
            self._crashed.discard(machine)
        self._planned.clear()
        await trio.sleep(0.001)  # until a program that was just started has its file open
        while any(people.open for people in self.people):
            await trio.sleep(1)
        self.say("all is mended")

    async def _peace(self) -> None:
        if not await self._until_agreed():
            return
        for judged in self.judges:
            judged.after_step("in peace")
        judge.agreement(self.judges)
        judge.copies_shown(self.judges)
        judge.exact_conflicts(self.judges, self.known)
        judge.nothing_lost(self.judges, self.known)
        judge.recorded_by_nobody(self.judges, self.known)
        self.ended = judge.ended(self.judges[0])
        await self._silence()

    async def _until_agreed(self) -> bool:
        """L1. False when they cannot agree, and say so: a version that was told of went with a backup before anybody had it, or a
        machine did not know that it was restored, and some have what it recorded before, others what it recorded afterwards.
        """
        deadline = trio.current_time() + PEACE_S
        quiet_since = trio.current_time()
        while True:
            await trio.sleep(1)
            self._judge()
            if await self._answered() or not self._agreed():
                quiet_since = trio.current_time()
            elif trio.current_time() - quiet_since > SETTLED_S:
                return True
            if trio.current_time() > deadline:
                if self.known.is_restored and judge.lost(self.judges, current=True):
                    self.happened["version gone with a backup"] += 1
                    return False
                if self.known.is_restored and await self._forked():
                    self.happened["history forked"] += 1
                    return False
                told = await self._why_not()
                try:
                    judge.agreement(self.judges)
                except Breach as breach:
                    told = f"{breach}; {told}"
                raise Breach(f"L1 they do not come to agree: {told}")

    async def _forked(self) -> bool:
        """Whether a machine says that another one has told it something else than it told others: somebody has to subscribe again."""
        running = [machine for machine in self.machines if machine.mandate is not None]
        told = [problem["code"] for machine in running for problem in (await machine.ask("GET", "/v1/status"))["problems"]]
        return "machine-twice" in told

    def _agreed(self) -> bool:
        mandates = [machine.mandate for machine in self.machines]
        if not all(mandate is not None and (mandate.agrees_here or _waits_for_a_name(mandate)) for mandate in mandates):
            return False
        views = [mandate.books.journal.view() for mandate in mandates if mandate is not None]
        state = (*views, *(machine.disk.changes for machine in self.machines))
        if len(set(views)) == 1 and self._agreed_at != state:
            with suppress(Breach):
                judge.agreement(self.judges)
                self._agreed_at = state
        return self._agreed_at == state

    async def _why_not(self) -> str:
        told = []
        for machine in self.machines:
            if machine.mandate is None:
                told.append(f"{machine.person} off, {machine.failures[-1:]}")
                continue
            status = await machine.ask("GET", "/v1/status")
            found = [(a["name"], a["state"], a["reason"]) for m in status["mandates"] for a in m["attachments"] if a["state"] != "synced"]
            problems = [problem["message"] for problem in status["problems"]]
            how = f"idle {machine.mandate.idle} lacks {machine.mandate.reckoning.lacking} links {len(machine.office.links)}"
            told.append(f"{machine.person} {how} {found} {problems}")
        return "; ".join(told)

    async def _answered(self) -> bool:
        """Whether a machine asked a person something, who says: what vanished is to be gone; a single file is to come back."""
        asked = False
        for machine in self.machines:
            if machine.mandate is None:
                continue
            if not _asks(machine.mandate) and int(trio.current_time()) % 10:
                continue
            status = await machine.ask("GET", "/v1/status")
            if "refused" in status:
                continue
            judge.answers(status, machine.person)
            if any(problem["code"] == "this-machine-twice" for problem in status["problems"]):
                asked = True
                await machine.ask("POST", "/v1/confirm", mandate=MANDATE, name="machine")
            for attachment in status["mandates"][0]["attachments"] if status["mandates"] else []:
                if attachment["state"] == "halted":
                    asked = True
                    await machine.ask("POST", "/v1/confirm", mandate=MANDATE, name=attachment["name"])
                elif attachment["state"] == "missing":
                    asked = True
                    await machine.ask("POST", "/v1/restore", mandate=MANDATE, name=attachment["name"])
            asked |= self._cleared(machine)
        return asked

    def _cleared(self, machine: Machine) -> bool:
        """Whether a folder that others deleted stood there for the sake of what a program left in it, which its person takes away."""
        assert machine.mandate is not None
        left = [shown for shown, why in machine.mandate.attention.items() if why.code == "left-over"]
        people = self.people[self.machines.index(machine)]
        cleared = [people.clear(name) for name in left]
        return any(cleared)

    async def _silence(self) -> None:
        """L1: whoever agrees is silent; and tidies up, where there is anything to tidy up."""
        long = self.schedule.seed % LONG_EACH == 0
        quiet_s = LOOKED_OVER_S if long else QUIET_S
        steps = [machine.disk.steps for machine in self.machines]
        sent = self.net.sent
        await trio.sleep(quiet_s)
        for machine, before in zip(self.machines, steps, strict=True):
            if machine.disk.steps - before > (80 if long else 40):  # what was fresh is read once more
                raise Breach(f"L1 {machine.person} wrote {machine.disk.steps - before} times in {quiet_s:.0f} s of peace")
        allowed = len(self.machines) * (len(self.machines) - 1) * quiet_s * 100
        if self.net.sent - sent > allowed:  # perhaps a link that was cut without a sign was only now found to be, and made anew
            sent = self.net.sent
            await trio.sleep(quiet_s)
        if self.net.sent - sent > allowed:
            raise Breach(f"L1 {self.net.sent - sent} bytes were sent in {quiet_s:.0f} s of peace")
        if any(judge.leftovers(machine) for machine in self.machines):
            await trio.sleep(LOOKED_OVER_S - quiet_s)
        for machine in self.machines:
            if left := judge.leftovers(machine):
                raise Breach(f"I1 {machine.person}: left over {left}")

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Whatever the product logs as an error is a mistake of ours."""
        handler = _Errors(self.errors)
        logger = logging.getLogger("p2psync")
        propagate, logger.propagate = logger.propagate, False
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.propagate = propagate


class _Errors(logging.Handler):
    def __init__(self, errors: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._errors = errors

    def emit(self, record: logging.LogRecord) -> None:
        self._errors.append(self.format(record))


def _asks(mandate: Mandate) -> bool:
    """Whether something waits for a person's word."""
    return any(why.state in ("halted", "missing") or why.code == "left-over" for why in mandate.attention.values())


def _waits_for_a_name(mandate: Mandate) -> bool:
    """Whether nothing is left to do but that somebody renames one of two files."""
    behind = {shown for shown, why in mandate.attention.items() if why.code == "name-collision"}
    return mandate.idle and mandate.reckoning.lacking[0] <= len(behind)


@contextmanager
def _one_interface() -> Iterator[None]:
    patch: Any = office_module
    before = patch.select
    patch.select = lambda names: [interface(names[0])]
    try:
        yield
    finally:
        patch.select = before


def _first(group: BaseExceptionGroup[Breach]) -> Breach:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Breach)
    return error
