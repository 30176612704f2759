"""Offices that exist already: founded once for so many machines, and laid under every run that begins with one, down to inodes and times.

To found an office costs as much as everything that then befalls it. What tells disks apart does not show in what a founding leaves, but for
one thing: a disk that does not know which files are programs. An office on such a one is founded by the run itself.
"""

from __future__ import annotations

import copy
import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tests.sim.device import Disk, content
from tests.sim.disk import Traits
from tests.sim.people import Known
from tests.sim.real import real
from tests.sim.schedule import Schedule
from tests.sim.volatile import Node

if TYPE_CHECKING:
    from tests.sim.world import World

FOUNDS_EACH = 20
"""One of so many runs founds its own office all the same."""
COARSE_S = 2.0
"""The times of a founding are multiples of this, which no disk shows in another way."""


@dataclass(frozen=True)
class _File:
    """One file or folder (None) below the root of a disk."""

    path: str
    mode: int
    data: bytes | None
    number: int
    mtime: int
    ctime: int
    is_database: bool


@dataclass(frozen=True)
class _Machine:
    """What one machine begins with."""

    files: tuple[_File, ...]
    numbers: int
    places: dict[str, Path]
    by_daemon: frozenset[str]


@dataclass(frozen=True)
class Start:
    """An office in which all agree and every machine is off, at ``seconds`` of its own clock."""

    seconds: float
    machines: tuple[_Machine, ...]
    known: Known

    def lay(self, world: World) -> None:
        """Put it under a world in which nothing has happened."""
        found = copy.deepcopy(self.known)
        vars(world.known).update(vars(found))
        for machine, people, judged, own in zip(world.machines, world.people, world.judges, self.machines, strict=True):
            _lay(machine.disk, own)
            people.places = dict(own.places)
            judged.by_people()
            judged.by_daemon = set(own.by_daemon)


def taken(world: World, seconds: float) -> Start:
    """The office of a world whose machines are all off."""
    machines = tuple(
        _Machine(tuple(_files(machine.disk)), machine.disk.numbers, dict(people.places), frozenset(judged.by_daemon))
        for machine, people, judged in zip(world.machines, world.people, world.judges, strict=True)
    )
    return Start(seconds, machines, copy.deepcopy(world.known))


def kind_of(schedule: Schedule) -> Schedule | None:
    """The founding that a run may begin with: itself a run, in which nothing befalls anybody; None: it has to found its own."""
    if schedule.seed % FOUNDS_EACH == 0 or any(one.no_exec for one in schedule.traits):
        return None
    traits = (Traits(coarse_s=COARSE_S),) * schedule.machines
    return replace(schedule, seed=0, traits=traits, skews_s=(0,) * schedule.machines, slow=False, steps=())


def _files(disk: Disk) -> list[_File]:
    found: list[_File] = []
    _gather(disk, disk.root, found)
    return found


def _gather(disk: Disk, path: str, found: list[_File]) -> None:
    status = real.lstat(path)
    node = disk.node(status)
    data = None
    if not node.is_folder:
        fd = real.open(path, os.O_RDONLY)
        data = content(fd, status.st_size)
        real.close(fd)
    mode = status.st_mode & 0o7777
    mtime, ctime = (ns - ns % int(COARSE_S * 1e9) for ns in (node.mtime, node.ctime))
    found.append(_File(path[len(disk.root) :], mode, data, node.number, mtime, ctime, node.is_database))
    for name in sorted(real.listdir(path)) if node.is_folder else ():
        _gather(disk, f"{path}/{name}", found)


def _lay(disk: Disk, own: _Machine) -> None:
    for file in own.files:
        path = f"{disk.root}{file.path}"
        if file.data is not None:
            fd = real.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            real.write(fd, file.data)
            real.fchmod(fd, file.mode)
            status = real.fstat(fd)
            real.close(fd)
        else:
            with suppress(FileExistsError):
                real.mkdir(path)
            real.chmod(path, file.mode)
            status = real.lstat(path)
        node = disk.nodes[status.st_ino] = Node(file.number, status.st_mode, file.mtime)
        node.ctime, node.is_database = file.ctime, file.is_database
    disk.numbers = own.numbers
