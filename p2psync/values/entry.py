"""The entry: one change of one path, inside a record of kind CHANGE; up to 256 of them share a signature.

An entry names the entries that it **supersedes**: the versions of that path which its author's version was made from. The entries
of a path that nothing supersedes are its heads; two heads with different bytes are a conflict. No clock decides anything.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from p2psync.values.content import CHUNK_MAX, MAX_SIZE, Content, File, Folder, Gone, State
from p2psync.values.digest import Digest
from p2psync.values.errors import BadPath, Malformed
from p2psync.values.names import RecordId, RelPath
from p2psync.values.packing import Plain, exactly, fields

MAX_ENTRIES = 256
MAX_PARENTS = 64


class Op(IntEnum):
    """What an entry does. The first three are about attachments, the others about what a path holds."""

    ATTACH_FILE = 1
    ATTACH_FOLDER = 2
    DETACH = 3
    FILE = 4
    FOLDER = 5
    GONE = 6


class Act(IntEnum):
    """Why an entry was made, for people: it changes nothing in what the entry does."""

    SAVE = 0
    RESOLVE = 1
    RESTORE = 2
    ATTACH = 3
    DETACH = 4
    DELETE = 5


_OPS, _ACTS = frozenset(Op), frozenset(Act)


@dataclass(frozen=True, slots=True, order=True)
class Ref:
    """Names one entry: the record it is in and its index there. Their order is arbitrary and the same for everybody."""

    record: RecordId
    index: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One change: ``op`` on ``path``, with the content and permission of a file, superseding ``parents``.

    ``mtime_ns`` is the modification time of the file (nanoseconds since 1970), set again where it is written; ``by`` is the user who
    asked for an act over the status socket, or empty.
    """

    op: Op
    path: RelPath
    content: Content | None = None
    executable: bool = False
    mtime_ns: int = 0
    parents: tuple[Ref, ...] = ()
    act: Act = Act.SAVE
    by: str = ""

    @property
    def attaches(self) -> bool:
        """Whether the entry is about the attachment itself rather than about what its path holds."""
        return self.op in (Op.ATTACH_FILE, Op.ATTACH_FOLDER, Op.DETACH)

    @property
    def state(self) -> State:
        """What the path holds after this entry (only for entries that are not about attachments)."""
        if self.op == Op.FILE and self.content is not None:
            return File(self.content, self.executable)
        return Folder() if self.op == Op.FOLDER else Gone()

    def pack(self) -> Plain:
        """The plain array of this entry."""
        c = self.content
        return [
            int(self.op),
            self.path.text,
            None if c is None else [c.digest, c.size, c.listing],
            self.executable,
            self.mtime_ns,
            [[ref.record, ref.index] for ref in self.parents],
            int(self.act),
            self.by,
        ]

    @classmethod
    def unpack(cls, value: object) -> "Entry | None":
        """The entry that a plain array says, or None when its path is one that we do not take: the record is kept, the entry is not.

        Raises:
            Malformed: anything else about it is wrong.
        """
        op, path, content, executable, mtime, parents, act, by = fields(value, int, str, (list, type(None)), bool, int, list, int, str)
        if op not in _OPS or act not in _ACTS or len(by.encode()) > 64:
            raise Malformed(why="an entry of an unknown kind")
        if (op == Op.FILE) != (content is not None) or len(parents) > MAX_PARENTS:
            raise Malformed(why="an entry whose fields do not fit each other")
        found = _content(content)
        refs = tuple(_ref(ref) for ref in parents)
        try:
            where = RelPath(path)
        except BadPath:
            return None
        if op in (Op.ATTACH_FILE, Op.ATTACH_FOLDER, Op.DETACH) and where.parent is not None:
            raise Malformed(why="an attachment whose name is a path")
        return cls(Op(op), where, found, executable, mtime, refs, Act(act), by)


def entry_for(path: RelPath, state: State, *, mtime_ns: int = 0, parents: tuple[Ref, ...] = (), act: Act = Act.SAVE, by: str = "") -> Entry:
    """The entry that says “``path`` now holds ``state``”."""
    if isinstance(state, File):
        return Entry(Op.FILE, path, state.content, state.executable, mtime_ns, parents, act, by)
    return Entry(Op.FOLDER if isinstance(state, Folder) else Op.GONE, path, parents=parents, act=act, by=by)


def entries_of(body: Sequence[Any]) -> list[Entry | None]:
    """The entries in the body of a CHANGE record, by index; None where a path was refused.

    Raises:
        Malformed: none at all, too many, or one that is not well formed.
    """
    if not 1 <= len(body) <= MAX_ENTRIES:
        raise Malformed(why=f"{len(body)} entries in one record")
    return [Entry.unpack(value) for value in body]


def _content(value: list[Any] | None) -> Content | None:
    if value is None:
        return None
    digest, size, listing = fields(value, bytes, int, bytes)
    if size > (CHUNK_MAX if listing == digest else MAX_SIZE):
        raise Malformed(why="a file that is too large, or too large for one chunk")
    return Content(Digest(exactly(digest, 32)), size, Digest(exactly(listing, 32)))


def _ref(value: object) -> Ref:
    record, index = fields(value, bytes, int)
    if index >= MAX_ENTRIES:
        raise Malformed(why="a reference to an entry that cannot exist")
    return Ref(RecordId(exactly(record, 32)), index)
