"""What must come out, judged by what people did and saw alone; nothing here uses engine/reconcile or engine/heads.

An act is what one person did to one path on one machine. An act may take away a version when that version stood at the very path
under the hands of whoever did it; and it surely takes it away when it had come to rest there. From this follows which versions may
not vanish, and which may not be shown any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from typing import Protocol

from p2psync.values.content import Content, File, Gone, State
from p2psync.values.entry import Ref


class Recorded(Protocol):
    """One record, as the judge sees it."""

    @property
    def ref(self) -> Ref: ...
    @property
    def path(self) -> str: ...
    @property
    def state(self) -> State: ...
    @property
    def past(self) -> frozenset[Ref]: ...


@dataclass(eq=False)
class Deed:
    """One act: what the path holds by it, which contents had stood there, and which acts it surely took away."""

    machine: int
    path: str
    state: State
    stood: frozenset[Content]
    surely: frozenset[Deed]
    refs: set[Ref] = field(default_factory=set)
    pasts: set[Ref] = field(default_factory=set)
    seen: bool = False
    is_old: bool = False
    lost: bool = False

    @property
    def content(self) -> Content | None:
        """The bytes, when it is a file."""
        return self.state.content if isinstance(self.state, File) else None


@dataclass
class _Place:
    """One path on one machine: the contents that stood there since it last was at rest, and the acts that came since."""

    stood: set[Content] = field(default_factory=set)
    surely: frozenset[Deed] = frozenset()
    fresh: list[Deed] = field(default_factory=list)
    gone_by_act: bool = True
    seen_gone: bool = True


class Judge:
    """Follows what people do. While ``exact``, it also knows which versions nobody should see any more."""

    def __init__(self) -> None:
        self.deeds: list[Deed] = []
        self.exact = True
        self._places: dict[tuple[int, str], _Place] = {}

    def _place(self, machine: int, path: str) -> _Place:
        return self._places.setdefault((machine, path), _Place())

    # ---- what happens

    def did(self, machine: int, path: str, state: State, before: State | None) -> None:
        """A person makes a path hold ``state``."""
        place = self._place(machine, path)
        if isinstance(before, File):
            place.stood.add(before.content)
        deed = Deed(machine, path, state, frozenset(place.stood), place.surely | frozenset(place.fresh))
        self.deeds.append(deed)
        place.fresh.append(deed)
        place.gone_by_act = isinstance(state, Gone)

    def resolved(self, machine: int, entry: Recorded) -> None:
        """A person chooses a version of a conflict in place of all that this machine knows."""
        known = [deed for deed in self.deeds if deed.path == entry.path and deed.refs & entry.past]
        contents = frozenset(deed.content for deed in known if deed.content is not None)
        self.deeds.append(Deed(machine, entry.path, entry.state, contents, frozenset(known), {entry.ref}, set(entry.past), True))

    def lost(self, machine: int, path: str) -> None:
        """A path holds nothing, and nobody wanted that."""
        place = self._place(machine, path)
        place.gone_by_act = False
        for deed in place.fresh:
            deed.lost = True

    def seen(self, machine: int, path: str, state: State, agreed: State | None) -> None:
        """The machine looks, and finds what it had not seen there; what equals the version it knows is no version of its own."""
        place = self._place(machine, path)
        place.seen_gone = place.gone_by_act
        for deed in place.fresh:
            if deed.state == state:
                deed.seen, deed.is_old = True, deed.is_old or state == agreed

    def recorded(self, machine: int, entry: Recorded) -> None:
        """The machine records what it saw at a path."""
        if isinstance(entry.state, Gone):
            assert self._place(machine, entry.path).seen_gone, f"nobody deleted “{entry.path}” on machine {machine}"
        for deed in self._place(machine, entry.path).fresh:
            if deed.state == entry.state:
                deed.refs.add(entry.ref)
                deed.pasts |= entry.past

    def settled(self, machine: int, path: str, state: State | None, refs: Iterable[Ref]) -> None:
        """What was seen at the path on this machine is the version that these records made."""
        refs = set(refs)
        for deed in self._place(machine, path).fresh:
            if deed.seen and isinstance(state, File) and deed.content == state.content:
                deed.refs |= refs

    def put(self, machine: int, path: str, state: State, before: State | None = None, known: State | None = None) -> None:
        """The machine brings a version to the path, in place of what stands there, which it must have seen, or seen the like of."""
        place = self._place(machine, path)
        if place.fresh and place.fresh[-1].state == before:
            assert place.fresh[-1].seen or before == known, f"a save of “{path}” was overwritten unseen"
        if isinstance(state, File):
            place.stood.add(state.content)
        place.surely, place.fresh, place.gone_by_act = frozenset(), [], True

    def quiet(self, machine: int, path: str, disk: State | None, observed: State | None, known: Set[Ref]) -> None:
        """The machine has nothing to do at the path, which is as it was seen to be."""
        if disk == observed:
            place = self._place(machine, path)
            content = disk.content if isinstance(disk, File) else None
            place.stood = set() if content is None else {content}
            place.surely = frozenset(
                d for d in self.deeds if content is not None and d.path == path and d.content == content and d.refs & known
            )
            place.fresh = []

    # ---- what must be and what must not be

    def must_be_shown(self, path: str, recorded: Set[Ref]) -> set[Content]:
        """The contents that nobody who had them before their eyes has replaced; of what no record is left nothing can be asked."""
        deeds = [deed for deed in self.deeds if deed.path == path]
        return {
            deed.content
            for deed in deeds
            if deed.content is not None
            and deed.seen
            and not deed.is_old
            and deed.refs & recorded
            and not any(other.content != deed.content and other.refs and _had(other, deed) for other in deeds)
        } | {
            deed.content
            for deed in deeds
            if deed.content is not None and deed.seen and not deed.is_old and not deed.refs and not self._replaced_at_once(deed)
        }

    def _replaced_at_once(self, deed: Deed) -> bool:
        later = self.deeds[self.deeds.index(deed) + 1 :]
        here = [one for one in later if one.machine == deed.machine and one.path == deed.path]
        return any(deed.lost or deed.content in one.stood for one in here)  # of what went with its disk nobody can tell any more

    def may_be_shown(self, path: str) -> set[Content]:
        """The contents with an act that no recorded act with other bytes has surely taken away."""
        deeds = [deed for deed in self.deeds if deed.path == path]
        replaced = {old for deed in deeds if deed.refs for old in deed.surely if old.content != deed.content}
        return {deed.content for deed in deeds if deed.content is not None and deed not in replaced}


def _had(later: Deed, deed: Deed) -> bool:
    """Whether what ``deed`` made stood at the path before whoever did the later one, who could know that it was this version."""
    return deed.content in later.stood and (deed.machine == later.machine or bool(deed.refs & later.pasts))
