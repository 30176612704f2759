"""States, heads and agreements for the tests of the engine, by short names: `file("x")`, `head(3, "x")`, `agreed("x", [3])`."""

from p2psync.engine.heads import Head, Heads
from p2psync.engine.reconcile import Agreed
from p2psync.values.content import Content, File, Folder, Gone, State
from p2psync.values.digest import content_digest
from p2psync.values.entry import Ref
from p2psync.values.names import RecordId

FOLDER = Folder()
GONE = Gone()


def ref(number: int) -> Ref:
    """The entry with this number; their order is that of the numbers."""
    return Ref(RecordId(number.to_bytes(32, "big")), 0)


def file(text: str, executable: bool = False) -> File:
    """A file with this text."""
    digest = content_digest(text.encode())
    return File(Content(digest, len(text), digest), executable)


def state(what: str | State) -> State:
    """A state as it is, or the file with this text."""
    return file(what) if isinstance(what, str) else what


def head(number: int, what: str | State) -> Head:
    """The head that entry ``number`` made."""
    return Head(ref(number), state(what))


def heads(*pairs: tuple[int, str | State]) -> Heads:
    """Heads by the numbers of their entries."""
    return Heads.of([head(number, what) for number, what in pairs])


def agreed(what: str | State, refs: list[int], seen: list[int] | None = None) -> Agreed:
    """What is agreed: a state, the entries that stood for it, and all heads known then (by default the same)."""
    known = refs if seen is None else seen
    return Agreed(state(what), frozenset(map(ref, refs)), frozenset(map(ref, known)))
