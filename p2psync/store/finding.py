"""What a person means by a name: something shared, a version that stands beside it, something deleted or detached, or nothing of ours."""

import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from p2psync.engine.ignore import is_by_work
from p2psync.store import copies, versions
from p2psync.store.books import Books
from p2psync.store.copies import Copy
from p2psync.values.entry import Op
from p2psync.values.errors import BadPath, UserError
from p2psync.values.names import PREFIX, RelPath, escaped, fold

Kind: TypeAlias = Literal["shared", "detached", "deleted", "not-recorded", "conflict-copy", "unfit-name", "work-file", "own-file"]


class NotKnown(UserError):
    """“{name}” is not in “{mandate}”, and never was{near}. “p2psync status” shows the names."""


@dataclass(frozen=True)
class Found:
    """What ``asked`` names: ``shown`` is its name as the status prints it, ``path`` the path whose story it is, if it has one.

    ``copy`` is the version that stands there, when it is one of a conflict; ``why`` says why a name cannot be shared.
    """

    kind: Kind
    asked: str
    shown: str
    path: RelPath | None = None
    copy: Copy | None = None
    why: str = ""


def find(books: Books, asked: str, attention: set[str]) -> Found:
    """What a person calls ``asked``: a name as the status prints it, or the whole path of a file on this disk.

    ``attention`` are the names that the status speaks of. Raises: NotKnown.
    """
    text = _on_disk(books, Path(asked)) if asked.startswith("/") else asked.strip("/")
    if text is None:
        raise NotKnown(name=escaped(asked), mandate=escaped(books.name), near="")
    copy = _copy(books, text)
    if copy is not None:
        return Found("conflict-copy", text, copy.path.text, copy.path, copy)
    try:
        path = RelPath(unicodedata.normalize("NFC", text))
    except BadPath as e:
        if text in attention or _top_is_known(books, text):
            return Found(_by_work(text) or "unfit-name", text, text, why=str(e.facts["why"]))
        raise _unknown(books, asked) from None
    by_work = _by_work(text)
    if by_work is not None and _top_is_known(books, text):
        return Found(by_work, text, text, path)
    return Found(_kind(books, path, text in attention, asked), text, path.text, path)


def _kind(books: Books, path: RelPath, spoken_of: bool, asked: str) -> Kind:
    db = books.ledger.read()
    top = RelPath(path.top)
    heads = versions.attachment_heads(db, top)
    if heads and heads[0][1].op == Op.DETACH and versions.how_many(db, path):
        return "detached"
    if versions.is_gone(db, path):
        return "deleted"
    if path in books.attachments() or versions.heads(db, path).all or spoken_of:
        return "shared"
    location = books.locations().get(top)
    if location is not None and not location.single and os.path.lexists(location.path.joinpath(*path.parts[1:])):
        return "not-recorded"
    if versions.history(db, path):
        return "deleted"
    raise _unknown(books, asked)


def _on_disk(books: Books, where: Path) -> str | None:
    """The name of what stands at a place of this disk, or would."""
    for name, location in books.locations().items():
        if where == location.path:
            return name.text
        if not location.single and location.path in where.parents:
            return "/".join((name.text, *where.relative_to(location.path).parts))
        if location.single and where.parent == location.path.parent and _copy(books, where.name) is not None:
            return where.name
    return None


def _copy(books: Books, text: str) -> Copy | None:
    """The version in conflict that stands beside its path under this name."""
    for copy in copies.everything(books.ledger.read()):
        location = books.locations().get(RelPath(copy.path.top))
        above = () if location is None or location.single else (copy.path.top,)
        if "/".join((*above, *copy.disk)) == text:
            return copy
    return None


def _by_work(text: str) -> Literal["work-file", "own-file"] | None:
    """What is never shared since it, or a folder that it is in, belongs to p2psync or to a program at work."""
    for name in text.split("/"):
        if is_by_work(name):
            return "own-file" if fold(name).startswith(PREFIX) else "work-file"
    return None


def _top_is_known(books: Books, text: str) -> bool:
    """Whether it is in an attached folder, or beside an attached file."""
    top, _, below = text.partition("/")
    names = {name.text for name in books.attachments()}
    return top in names if below else any(location.single for location in books.locations().values())


def _unknown(books: Books, asked: str) -> NotKnown:
    """Perhaps only its letters are larger or smaller, or the folder was left out."""
    db = books.ledger.read()
    wanted = fold(asked.strip("/"))
    rows = [RelPath(row[0]) for row in db.execute("SELECT DISTINCT path FROM entries ORDER BY n DESC LIMIT 20000")]
    near = [path for path in rows if path.fold == wanted] or [path for path in rows if path.fold.endswith(f"/{wanted}")]
    shown = f"; perhaps you mean “{near[0]}”" if near else ""
    return NotKnown(name=escaped(asked), mandate=escaped(books.name), near=shown)
