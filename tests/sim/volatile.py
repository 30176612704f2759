"""What of a disk's content a power cut may take back: changes of names until their folder is synced, bytes until their file is.

The real files hold the present state. Here stands only what differs from the durable one: for each change of names the way back, for each
file that was written to what is durable of it. So it costs nothing to know, and a power cut is worked out when it comes.
"""

from __future__ import annotations

import random
import stat
from collections.abc import Iterable
from dataclasses import dataclass

PAGE = 4096


@dataclass(slots=True)
class Image:
    """A file as a power cut may leave it."""

    data: bytes
    mode: int
    mtime: int


class Node:
    """One file or folder, whatever its names. ``number`` is its inode as the product sees it, times are nanoseconds since 1970."""

    __slots__ = (
        "away", "ctime", "device", "dirty_at", "is_database", "is_folder", "last", "listed", "lost", "mtime", "number", "old", "seen",
    )  # fmt: skip

    def __init__(self, number: int, mode: int, now: int) -> None:
        self.number = number
        self.is_folder = stat.S_ISDIR(mode)
        self.mtime = self.ctime = now
        self.old: Image | None = None
        """What is durable of it; None: all of it."""
        self.dirty_at = 0.0
        self.lost = False
        """A sync failed: Linux has then forgotten what was to be written, and a later sync does not bring it to the disk."""
        self.last: Image | None = None
        """What was in it when its last name went."""
        self.seen: bytes | None = None
        """What is in it, when somebody has looked since it was written to."""
        self.listed: list[tuple[str, str, Node]] | None = None
        """What is in the folder (the name, composed, and what it names), when somebody has looked since its names changed."""
        self.is_database = False
        self.away = False
        self.device: int | None = None


class Change:
    """One change of names that happens as a whole: for each entry of a folder the node before and after it; ``at`` in seconds."""

    __slots__ = ("at", "entries")

    def __init__(self, at: float, entries: tuple[tuple[Node, str, Node | None, Node | None], ...]) -> None:
        self.at = at
        self.entries = entries

    def is_in(self, folder: Node) -> bool:
        """Whether the folder is one that it changes."""
        return any(entry[0] is folder for entry in self.entries)

    def places(self) -> set[tuple[Node, str]]:
        """Where it changes something."""
        return {(entry[0], entry[1]) for entry in self.entries}


class Volatile:
    """All that is not durable yet."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.dirty: set[Node] = set()

    # ---- what happens

    def change(self, at: float, *entries: tuple[Node, str, Node | None, Node | None]) -> None:
        """Names change. A plain file that moves from one folder to the other is durable in each of them by itself."""
        for entry in entries:
            entry[0].listed = None
        together = len({entry[0] for entry in entries}) == 1 or any(node and node.is_folder for entry in entries for node in entry[2:])
        for some in (entries,) if together else ((entry,) for entry in entries):
            self.changes.append(Change(at, tuple(some)))

    def touch(self, node: Node, at: float, old: Image) -> None:
        """The file is about to be written to; ``old`` is what it holds."""
        node.old, node.dirty_at = old, at
        self.dirty.add(node)

    def sync(self, node: Node) -> None:
        """The folder's names, or the file's bytes, are on the disk."""
        if node.is_folder:
            self._settle([change for change in self.changes if change.is_in(node)])
        elif not node.lost:
            node.old = None
            self.dirty.discard(node)

    def forget(self, node: Node) -> None:
        """The bytes of this file are somebody else's to keep."""
        node.old, node.lost = None, False
        self.dirty.discard(node)

    def settle(self, before: float) -> None:
        """What is older has reached the disk by itself."""
        self._settle([change for change in self.changes if change.at < before])
        for node in [node for node in self.dirty if node.dirty_at < before]:
            self.forget(node)

    def settle_below(self, nodes: set[Node]) -> None:
        """All that concerns these folders and files is on the disk."""
        self._settle(
            [change for change in self.changes if any(node in nodes for entry in change.entries for node in (entry[0], *entry[2:]))]
        )
        for node in self.dirty & nodes:
            self.forget(node)

    def _settle(self, durable: list[Change]) -> None:
        """They are durable, and so is what had to come before them at the same places."""
        if not durable:
            return
        done, places = set(durable), {place for change in durable if len(change.entries) > 1 for place in change.places()}
        left = []
        for change in reversed(self.changes):
            if change in done:
                places |= change.places() if len(change.entries) > 1 else set()
            elif places and change.places() & places:
                places |= change.places()
            else:
                left.append(change)
        self.changes = left[::-1]

    # ---- the power cut

    def undone(self, chance: random.Random) -> list[Change]:
        """The changes that did not reach the disk, the last first; nothing is durable or not any more after this."""
        style = chance.choice(("all", "none", "journal", "folders", "each"))
        cuts: dict[Node, int] = {}
        journal = chance.randint(0, len(self.changes))
        lost: list[Change] = []
        blocked: set[tuple[Node, str]] = set()
        for number, change in enumerate(self.changes):
            kept = style == "all" or (style == "journal" and number < journal) or (style == "each" and chance.random() < 0.5)
            if style == "folders":
                for entry in change.entries:
                    if entry[0] not in cuts:
                        cuts[entry[0]] = chance.randint(number, len(self.changes))
                kept = all(number < cuts[entry[0]] for entry in change.entries)
            if not kept or change.places() & blocked:
                blocked |= change.places()
                lost.append(change)
        self.changes = []
        return lost[::-1]


def left_of(old: Image, new: Image, chance: random.Random) -> Image:
    """What a power cut leaves of a file of which ``old`` is durable and ``new`` was written last: one of them, or a torn mixture."""
    style = chance.choice(("old", "new", "torn", "torn", "zeros"))
    if old.data == new.data:  # only its permissions or times changed
        style = "old" if style != "new" else style
    if style == "old":
        return old
    if style == "new":
        return new
    size = chance.choice([len(old.data), len(new.data), chance.randint(0, max(len(old.data), len(new.data)))])
    pages: Iterable[bytes] = (_page(start, size, old.data, new.data, style, chance) for start in range(0, size, PAGE))
    other = chance.choice([old, new])
    return Image(b"".join(pages), other.mode, other.mtime)


def _page(start: int, size: int, old: bytes, new: bytes, style: str, chance: random.Random) -> bytes:
    """One page: the new one or, where that did not reach the disk, the old one; zeros where there is none."""
    length = min(PAGE, size - start)
    source = new if style == "torn" and chance.random() < 0.5 else old
    return source[start : start + length].ljust(length, b"\0")
