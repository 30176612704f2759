"""What this machine is like where p2psync works: disks, limits, permissions, and how the daemon was started. Looks, and nothing else.

Light: the command line imports it when no daemon answers.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from p2psync.engine.findings import NEAR, finding, is_low, is_shared
from p2psync.values.amounts import size
from p2psync.values.names import escaped

_ENOUGH_WATCHES = 524_288


def of_disks(places: list[Path]) -> list[dict[str, Any]]:
    """The disks that these folders are on, each once: room, and whether they are of a kind that has to be known."""
    found: list[dict[str, Any]] = []
    disks: set[int] = set()
    for place in places:
        shown = escaped(str(place))
        try:
            disk, room = os.stat(place).st_dev, os.statvfs(place)
        except OSError as e:
            found.append(finding("disk-gone", path=shown, why=(e.strerror or str(e)).lower()))
            continue
        if disk in disks:
            continue
        disks.add(disk)
        free, total, system = room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize, file_system(place)
        facts = {"free": size(free), "total": size(total), "path": shown, "system": system}
        found.append(finding("disk-low", **facts) if is_low(free, total) else finding("disk", **facts))
        if is_shared(system):
            found.append(finding("disk-shared", path=shown, system=system))
    return found


def file_system(place: Path) -> str:
    """The kind of file system at ``place`` (proc(5), mountinfo); “unknown” where that is not told."""
    real, best, kind = os.path.realpath(place), "", "unknown"
    with suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
            before, _, after = line.partition(" - ")
            point = before.split()[4].encode().decode("unicode_escape")
            if (real == point or real.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
                best, kind = point, after.split()[0]
    return kind


def of_home(home: Path) -> dict[str, Any]:
    """Whether the state directory is private."""
    try:
        mode = home.stat().st_mode
    except FileNotFoundError:
        return finding("no-home", path=escaped(str(home)))
    except OSError as e:
        return finding("disk-gone", path=escaped(str(home)), why=(e.strerror or str(e)).lower())
    return finding("home-open" if mode & 0o077 else "home", path=escaped(str(home)))


def of_watches(used: int) -> dict[str, Any]:
    """Whether there are watches enough (inotify(7)), ``used`` of which are in use."""
    limit = 0
    with suppress(OSError, ValueError):
        limit = int(Path("/proc/sys/fs/inotify/max_user_watches").read_text())
    short = limit > 0 and used > NEAR * limit
    return finding("watches-short" if short else "watched", used=used, limit=limit or "any number", better=max(_ENOUGH_WATCHES, 2 * limit))


def watches() -> int:
    """How many folders this very process has the kernel watch (proc(5), fdinfo)."""
    used = 0
    with suppress(OSError):
        for entry in os.listdir("/proc/self/fdinfo"):
            with suppress(OSError):
                used += Path("/proc/self/fdinfo", entry).read_text().count("inotify wd:")
    return used


def started_as() -> str | None:
    """“a system service” or “a service of this user”, by the control group that systemd put us in; None: by hand."""
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            group = line.rpartition(":")[2]
            if group.endswith(".service") and "p2psync" in group.rpartition("/")[2]:
                return "a service of this user" if "/user.slice/" in group else "a system service"
    return None
