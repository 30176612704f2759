"""A little office without disks: each machine has the three views of a few paths, and hands that do what reconcile orders.

The hands are those of store/work, store/apply and store/look, reduced to what decides: a decision is taken from the ledger's views and
carried out later, after another look at the disk; it may be interrupted after the disk was changed and before that was noted; what
cannot be done is tried again. Records are known in causal order, and stand on everything that their author knew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from p2psync.engine.heads import Head, Heads
from p2psync.engine.reconcile import Adopt, Agreed, Apply, Decision, Missing, Nothing, Record, reconcile
from p2psync.engine.safety import must_halt
from p2psync.values.content import File, Folder, Gone, State
from p2psync.values.entry import Ref
from tests.engine.planner_judge import Judge
from tests.engine.versions import FOLDER, GONE, ref

SINGLE = "bilan"
INSIDE = ("note", "clients", "clients/durand")
"""What is in the attached folder: a folder stands before what is in it."""
PATHS = (SINGLE, *INSIDE)


@dataclass(frozen=True)
class Entry:
    """One record: the version that it makes, those that it supersedes, and all that its author knew."""

    ref: Ref
    path: str
    state: State
    parents: frozenset[Ref]
    past: frozenset[Ref]


@dataclass(frozen=True)
class Job:
    """What is to be done at a path, as it was decided from these views."""

    observed: State | None
    agreed: Agreed | None
    heads: Heads
    decision: Decision


def above(path: str) -> str | None:
    """The folder that a path is in, below the attached one."""
    return path.rpartition("/")[0] or None


def below(path: str) -> list[str]:
    """The paths in a folder."""
    return [other for other in PATHS if above(other) == path]


Watch = Callable[[State | None, Agreed | None, Heads, bool, Decision], None]


class Office:
    """Machines that start out with nothing. ``watch`` is shown every decision; ``salt`` decides the order of the records' names."""

    def __init__(self, machines: int, salt: int = 0, watch: Watch | None = None, paths: tuple[str, ...] = PATHS) -> None:
        self.judge = Judge()
        self.paths = paths
        self.machines = [Machine(self, number) for number in range(machines)]
        self.watch = watch
        self._salt = salt
        self._made = 0

    def next_ref(self) -> Ref:
        """The name of the next record: names are hashes, so that their order says nothing."""
        self._made += 1
        return ref((self._made * 7919 + self._salt * 104729) % 10007 * 1000 + self._made)

    def settle(self, order: Callable[[list[int]], list[int]]) -> int:
        """Nothing new comes: everybody tells everybody, and does what there is to do, until nothing changes; returns the rounds."""
        for machine in self.machines:
            machine.come_back()
        for rounds in range(200):
            before = [machine.views() for machine in self.machines]
            for number in order(list(range(len(self.machines)))):
                machine = self.machines[number]
                for other in order(list(range(len(self.machines)))):
                    machine.learn(self.machines[other])
                machine.look()
                machine.plan()
                waiting = sorted(machine.jobs)
                for at in order(list(range(len(waiting)))):
                    machine.carry_out(waiting[at])
            if before == [machine.views() for machine in self.machines]:
                return rounds
        raise AssertionError("it does not end")


class Machine:
    """One machine: its disk, and what its ledger holds."""

    def __init__(self, office: Office, number: int) -> None:
        self.office = office
        self.number = number
        self.disk: dict[str, State] = {}
        self.observed: dict[str, State] = {}
        self.agreed: dict[str, Agreed] = {}
        self.known: dict[Ref, Entry] = {}
        self.todo: set[str] = set()
        self.jobs: dict[str, Job] = {}
        self.away = False
        self.halted = False
        self.in_the_way: set[str] = set()
        self._kept: tuple[dict[str, State], tuple[dict[str, State], dict[str, Agreed], dict[Ref, Entry]]] | None = None

    def views(self) -> object:
        """All that may still change when nothing new comes."""
        return dict(self.disk), dict(self.observed), dict(self.agreed), len(self.known), self.halted

    # ---- what a person does

    def save(self, path: str, state: File | Folder) -> None:
        """A program saves: what stood there goes, and what was in it when it was a folder."""
        folder = above(path)
        if self.away or self.disk.get(path) == state or (folder and isinstance(self.disk.get(folder), File)):
            return
        if folder and folder not in self.disk:
            self._set(folder, FOLDER)
        if isinstance(self.disk.get(path), Folder):
            self._clear(path)
        self._set(path, state)

    def delete(self, path: str) -> None:
        """A person deletes a file, or a folder with what is in it."""
        if not self.away and path in self.disk:
            self._clear(path)
            self._set(path, GONE)

    def rename(self, path: str, to: str) -> None:
        """A person moves a file over another."""
        state = self.disk.get(path)
        if isinstance(state, File) and to != path and not self.away:
            self.delete(path)
            self.save(to, state)

    def resolve(self, path: str, which: int) -> None:
        """A person chooses one of the versions of a conflict (store/resolving)."""
        heads = self.heads(path)
        if heads.others:
            chosen = (heads.winner, *heads.others)[which % (1 + len(heads.others))]
            entry = self._enter(path, chosen.state, heads.refs)
            self.office.judge.resolved(self.number, entry)
            self.todo.add(path)

    def _set(self, path: str, state: State) -> None:
        self.office.judge.did(self.number, path, state, self.disk.get(path))
        if isinstance(state, Gone):
            del self.disk[path]
        else:
            self.disk[path] = state

    def _clear(self, path: str) -> None:
        for inside in below(path):
            if inside in self.disk:
                self._set(inside, GONE)

    # ---- what happens to it

    def lose(self) -> None:
        """The attached folder is found empty, though nobody emptied it; one file that is missing would be a deletion like any."""
        files = [path for path in INSIDE if isinstance(self.observed.get(path), File) and self.disk.get(path) == self.observed[path]]
        if len(files) > 1 and len(files) == len([path for path in INSIDE if isinstance(self.observed.get(path), File)]):
            for path in INSIDE:
                if self.disk.pop(path, None) is not None:
                    self.office.judge.lost(self.number, path)
            self.look()

    def crash(self) -> None:
        """All that is only in memory is forgotten; a start looks at everything (Work.unfinished)."""
        self.jobs.clear()
        self.todo = set(PATHS)

    def come_back(self) -> None:
        """The root is there again, and a person says that what is missing was not meant to go (Vanishing.bring_back).

        What was seen before has been recorded by then: a person is asked between two rounds.
        """
        self.away = False
        self.look()
        if self.halted:
            self.plan()
            for path in sorted(self.jobs):
                self.carry_out(path)
            for path in [path for path in INSIDE if path in self.observed and path not in self.disk]:
                del self.observed[path]
                self.agreed.pop(path, None)
            self._resume()

    def back_up(self) -> None:
        """Keep copies of the disk and of the ledger."""
        self._kept = dict(self.disk), (dict(self.observed), dict(self.agreed), dict(self.known))

    def restore_ledger(self) -> None:
        """An older ledger is put in the place of the one that is there; the disk stays as it is, and is whole."""
        if self._kept is not None and not self.halted:
            observed, agreed, known = self._kept[1]
            self.observed, self.agreed, self.known = dict(observed), dict(agreed), dict(known)
            self.office.judge.exact = False
            self.crash()

    def restore_disk(self) -> None:
        """A person puts back what the disk held earlier: for the planner saves and deletions like any."""
        if self._kept is not None:
            for path in PATHS:
                old = self._kept[0].get(path)
                if isinstance(old, File | Folder):
                    self.save(path, old)
                else:
                    self.delete(path)

    def learn(self, other: Machine, most: int = 10_000) -> None:
        """Accept records of another machine, in the order in which it got them."""
        for entry in [entry for entry in other.known.values() if entry.ref not in self.known][:most]:
            self.known[entry.ref] = entry
            self.todo.add(entry.path)

    # ---- the eyes (store/look, store/vanishing)

    def look(self, paths: Iterable[str] = ()) -> None:
        """Note what stands at these paths, or everywhere; absence only when the root is there and not too much of it vanished together."""
        if self.away:
            return
        missed = {path for path in INSIDE if path in self.observed and path not in self.disk}
        files = [path for path in missed if isinstance(self.observed[path], File)]
        known = [path for path in INSIDE if isinstance(self.observed.get(path), File)]
        if missed and (self.halted or must_halt(len(files), len(known), root_changed=False)):
            self.halted = True
        elif self.halted:
            self._resume()
        for path in paths or self.office.paths:
            if (path in missed and self.halted) or self.disk.get(path) == self.observed.get(path):
                continue
            self.office.judge.seen(self.number, path, self.disk.get(path, GONE), self.agreed[path].state if path in self.agreed else None)
            self._note(path, self.disk.get(path))
            self.todo.add(path)

    def _resume(self) -> None:
        """What could not be decided meanwhile is decided (Vanishing)."""
        self.halted = False
        self.todo |= set(INSIDE)

    def _note(self, path: str, state: State | None) -> None:
        if state is None:
            self.observed.pop(path, None)
        else:
            self.observed[path] = state

    # ---- the head (store/work, store/versions)

    def heads(self, path: str) -> Heads:
        """The versions of a path that nothing known here supersedes, as store/versions finds them."""
        here = [entry for entry in self.known.values() if entry.path == path]
        over = {parent for entry in here for parent in entry.parents & entry.past}
        alive = [entry for entry in here if entry.ref not in over]
        found = Heads.of([Head(one.ref, one.state, any(one.ref in other.past for other in alive)) for one in alive])
        return Heads.of([head for head in found.all if isinstance(head.state, File)]) if path == SINGLE else found

    def decide(self, path: str) -> Job:
        """What is to be done at a path."""
        heads = self.heads(path)
        observed, agreed = self.observed.get(path), self._agreed(path, heads)
        decision = reconcile(observed, agreed, heads, single=path == SINGLE)
        if self.office.watch is not None:
            self.office.watch(observed, agreed, heads, path == SINGLE, decision)
        return Job(observed, agreed, heads, decision)

    def plan(self) -> None:
        """Decide about each path that something happened to."""
        if not self.away:
            for path in self.todo:
                self.jobs[path] = self.decide(path)
            self.todo = set()

    def _agreed(self, path: str, heads: Heads) -> Agreed | None:
        """An earlier version that stands where nothing was agreed is what a save was made from (Work._agreed)."""
        agreed, observed = self.agreed.get(path), self.observed.get(path)
        if not isinstance(observed, File) or not heads.all or isinstance(heads.winner.state, Gone) or (agreed is not None and agreed.seen):
            return agreed
        alive = self.heads(path).refs
        for entry in reversed(self.known.values()):
            if entry.path == path and entry.ref not in alive and isinstance(entry.state, File) and entry.state.content == observed.content:
                return Agreed(observed, frozenset((entry.ref,)), frozenset((entry.ref,)))
        return agreed

    # ---- the hands (store/work, store/apply)

    def carry_out(self, path: str, *, noted: bool = True, fails: bool = False) -> None:
        """Do what was decided about a path; unless ``noted`` the machine stops after the disk was changed, and before that is known."""
        job = self.jobs.pop(path, None)
        if job is None:
            return
        if self.away or fails:
            self.todo.add(path)
            return
        self.in_the_way.discard(path)
        match job.decision:
            case Nothing():
                self.office.judge.quiet(self.number, path, self.disk.get(path), self.observed.get(path), self.known.keys())
            case Adopt(agreed):
                self.office.judge.settled(self.number, path, agreed.state, agreed.refs)
                self.agreed[path] = agreed
                self.todo.add(path)
            case Record(state, parents):
                self._record(path, state, frozenset(parents))
            case Apply(head, agreed):
                self.office.judge.settled(self.number, path, job.observed, _equal(job))
                self._apply(path, job, head.state, agreed, noted)
                self.todo.add(path)
            case Missing():
                pass

    def _record(self, path: str, state: State, parents: frozenset[Ref]) -> None:
        if self.halted and isinstance(state, Gone):
            return
        assert path != SINGLE or not isinstance(state, Gone), "what is attached by itself leaves only by a detach"
        entry = self._enter(path, state, parents)
        self.office.judge.recorded(self.number, entry)
        self.agreed[path] = Agreed(state, frozenset((entry.ref,)), self.heads(path).refs)
        self.todo.add(path)

    def _enter(self, path: str, state: State, parents: frozenset[Ref]) -> Entry:
        entry = Entry(self.office.next_ref(), path, state, parents, frozenset(self.known))
        self.known[entry.ref] = entry
        return entry

    def _apply(self, path: str, job: Job, state: State, agreed: Agreed, noted: bool) -> None:
        if self.disk.get(path) != job.observed:
            self.look([path])  # it is not as it was seen to be
            return
        folder = above(path)
        if not isinstance(state, Gone) and folder and isinstance(self.disk.get(folder), File):
            self.in_the_way.add(path)
            return
        if isinstance(job.observed, Folder) and any(inside in self.disk for inside in below(path)):
            refs = agreed.refs if isinstance(state, Gone) else (job.agreed.refs if job.agreed else frozenset())
            if any(not isinstance(head.state, Gone) for inside in below(path) for head in self.heads(inside).all):
                self.agreed[path] = Agreed(GONE, refs, job.heads.refs)  # Applying._outlive
            return
        if folder and not isinstance(state, Gone) and folder not in self.disk:
            self.disk[folder] = FOLDER
            self.office.judge.put(self.number, folder, FOLDER)
        self.office.judge.put(self.number, path, state, self.disk.get(path), job.observed)
        if isinstance(state, Gone):
            self.disk.pop(path, None)
        else:
            self.disk[path] = state
        if noted:
            self._note(path, self.disk.get(path))
            self.agreed[path] = agreed
        else:
            self.office.judge.exact = False
            self.crash()


def _equal(job: Job) -> frozenset[Ref]:
    """The versions that hold what stands at the path which another is to take."""
    equal = job.agreed.refs if job.agreed and job.agreed.state == job.observed else frozenset()
    seen = job.observed
    return equal | {
        head.ref for head in job.heads.all if isinstance(head.state, File) and isinstance(seen, File) and head.state.content == seen.content
    }
