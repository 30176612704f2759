"""All works by name, in the order in which they are done, and the programs that do them."""

from __future__ import annotations

from collections.abc import Callable

from measuring.attached import many_attached
from measuring.bytewise import big_file, changed_inside, inserted, killed
from measuring.crowd import everybody, resting
from measuring.ours import P2psync
from measuring.peer import Peer
from measuring.quiet import commands, idle, many_files, starts
from measuring.rsync import Rsync
from measuring.saving import saves, saves_beside_bulk
from measuring.session import Figures, OpenSession, Session, Size
from measuring.syncthing import Syncthing, SyncthingTuned
from measuring.unison import Unison

WORKS: dict[str, Callable[[Session, Size], Figures]] = {
    "W7": starts,
    "W3": saves,
    "ask": commands,
    "W3c": saves_beside_bulk,
    "W1": big_file,
    "W4": changed_inside,
    "W5": inserted,
    "W2": many_files,
    "W6": idle,
    "W8": killed,
}

LIMITS = "limits"
"""The limits of the machine, measured as if they were a work."""

TOGETHER = frozenset({"W6"})
"""Works that all programs do at the same time."""

ALONE: dict[str, Callable[[OpenSession, Size], Figures]] = {"W9": everybody, "W10": many_attached, "W11": resting}
"""Works that need more desks than two, or a mandate of their own."""

PROGRAMS: dict[str, type[Peer]] = {peer.name: peer for peer in (P2psync, SyncthingTuned, Syncthing, Unison, Rsync)}
