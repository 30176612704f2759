"""The story of one file, as sentences: what was done to it, by whom, from which version, and what each machine holds of it.

Values in, sentences out. A moment is never part of a sentence: it is told beside it, in the reader's own time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from p2psync.values.amounts import count, size
from p2psync.values.digest import Digest
from p2psync.values.entry import Act, Op
from p2psync.values.names import fold

Holding: TypeAlias = Literal["current", "older", "unknown"]


@dataclass(frozen=True)
class Author:
    """Who did something, on which machine; ``own``: on this one."""

    person: str
    device: str
    own: bool

    def __str__(self) -> str:
        return f"{self.person} on {'this machine' if self.own else self.device}"


@dataclass(frozen=True)
class Happening:
    """One entry of the journal about a path. ``parents`` name the versions that it supersedes; ``when_ms`` is its author's clock.

    ``against`` are the versions that were made at the same time, neither knowing of the other; ``kept`` the earlier version whose bytes
    a resolution or a restoration took up.
    """

    version: str
    path: str
    op: Op
    act: Act
    author: Author
    when_ms: int
    digest: Digest | None = None
    size: int | None = None
    by: str = ""
    parents: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    kept: str | None = None


def connected(happenings: Sequence[Happening]) -> list[Happening]:
    """The same, the latest first, each with the versions it was made against and the one that it kept."""
    of_path: dict[str, list[Happening]] = {}
    for one in happenings:
        if one.op not in (Op.ATTACH_FILE, Op.ATTACH_FOLDER, Op.DETACH):
            of_path.setdefault(one.path, []).append(one)
    against, kept = dict[str, tuple[str, ...]](), dict[str, str]()
    for versions in of_path.values():
        against |= _against(versions)
        kept |= _kept(versions)
    return [replace(one, against=against.get(one.version, ()), kept=kept.get(one.version)) for one in happenings]


def _against(versions: Sequence[Happening]) -> dict[str, tuple[str, ...]]:
    """Versions made from the same one, or both from none, without knowing of each other, that differ."""
    by_parent: dict[str, list[Happening]] = {}
    for one in versions:
        for parent in one.parents or ("",):
            by_parent.setdefault(parent, []).append(one)
    found: dict[str, dict[str, None]] = {}
    for together in by_parent.values():
        for one in together:
            others = {other.version: None for other in together if (other.digest, other.op) != (one.digest, one.op)}
            found.setdefault(one.version, {}).update(others)
    return {version: tuple(others) for version, others in found.items() if others}


def _kept(versions: Sequence[Happening]) -> dict[str, str]:
    """For each version that took up the bytes of an earlier one, which one that was."""
    found = {}
    for number, one in enumerate(versions):
        if one.act in (Act.RESOLVE, Act.RESTORE) and one.digest is not None:
            earlier = [other for other in versions[number + 1 :] if other.digest == one.digest]
            chosen = next((other for other in earlier if other.version in one.parents), earlier[0] if earlier else None)
            if chosen is not None:
                found[one.version] = chosen.version
    return found


def tell(one: Happening, known: dict[str, Happening], about: str) -> str:
    """What happened, as a sentence; ``about`` is the path whose story it is, ``known`` all happenings by version."""
    said = f"{one.author} {_did(one, known, about)}"
    if earlier := [version for version in one.against if _is_before(version, one.version, known)]:
        others = " and ".join(_of(version, known) for version in earlier)
        said += f", without knowing of {others}: a conflict"
    return said + (f" (asked for by the user {one.by})" if one.by else "") + "."


def _is_before(version: str, other: str, known: dict[str, Happening]) -> bool:
    """Whether ``version`` is told of further down than ``other``, so that a conflict is spoken of once."""
    order = list(known)
    return version not in known or order.index(version) > order.index(other)


def _did(one: Happening, known: dict[str, Happening], about: str) -> str:
    name = "it" if one.path == about else f"“{one.path}”"
    match one.op, one.act:
        case Op.ATTACH_FILE, _:
            return f"attached the file “{one.path}”"
        case Op.ATTACH_FOLDER, _:
            return f"attached the folder “{one.path}”"
        case Op.DETACH, _:
            return f"took “{one.path}” out of the mandate"
        case Op.GONE, _:
            return f"deleted {name}" + _made_from(one, known, ", which was ")
        case Op.FOLDER, _:
            return f"made the folder “{one.path}”"
        case _, Act.RESOLVE:
            between = " and ".join(_of(version, known) for version in one.parents)
            settled = f"settled the conflict between {between}" if len(one.parents) > 1 else f"gave {name} a version of the conflict"
            return f"{settled}{_keeping(one, known)}: version {one.version}, {size(one.size)}"
        case _, Act.RESTORE:
            which = f"{_of(one.kept, known)} of {name}" if one.kept else f"an earlier version of {name}"
            return f"brought back {which}: version {one.version}, {size(one.size)}"
    where = "" if one.path == about else f" of “{one.path}”"
    return f"saved version {one.version}{where}, {size(one.size)}{_made_from(one, known, ', made from ') or ', the first one'}"


def _keeping(one: Happening, known: dict[str, Happening]) -> str:
    return f", keeping {_of(one.kept, known)}" if one.kept else ""


def _made_from(one: Happening, known: dict[str, Happening], words: str) -> str:
    return words + " and ".join(_of(version, known) for version in one.parents) if one.parents else ""


def _of(version: str | None, known: dict[str, Happening]) -> str:
    author = known[version].author.person if version in known else None
    return f"version {version}" + (f" by {author}" if author else "")


def told_of(one: Happening, known: dict[str, Happening], about: str) -> dict[str, Any]:
    """One happening, for programs and for people."""
    return {
        "when_ms": one.when_ms,
        "person": one.author.person,
        "device": one.author.device,
        "own": one.author.own,
        "act": one.act.name.lower(),
        "name": one.path,
        "version": one.version,
        "size": one.size,
        "from": list(one.parents),
        "against": list(one.against),
        "kept": one.kept,
        "by": one.by or None,
        "sentence": tell(one, known, about),
    }


What: TypeAlias = Literal["version", "deletion", "folder"]
_HAS = {
    "version": ("has the current version", "had the current version", "made the current version", "the current version"),
    "deletion": ("has deleted it too", "had deleted it too", "deleted it", "the deletion"),
    "folder": ("has all of it", "had all of it", "changed it last", "the last change in it"),
}


@dataclass(frozen=True)
class Heard:
    """What is known of another machine and one file.

    ``told`` says up to which entry of our journal its disk was when it last said something, and ``lacks`` how many files it lacked
    then; ``newest`` is our last entry about the file. ``online`` is now; ``authored``: it made the current version; ``knew``: its own last
    act stood on that version. ``what`` it is that it should have.
    """

    online: bool
    told: int | None
    lacks: int
    newest: int
    authored: bool
    knew: bool
    what: What = "version"


def holding(heard: Heard) -> tuple[Holding, str]:
    """Whether it has the current version, and the sentence that says so as far as it is known."""
    has, had, made, of = _HAS[heard.what]
    tense = "has" if heard.online else "had"
    seen = "" if heard.online else " when it was last heard"
    if heard.told is not None and heard.told >= heard.newest:
        if not heard.lacks:
            return "current", has if heard.online else had + seen
        return "unknown", f"{tense} {count(heard.lacks, 'file')} still to receive{seen}; whether this is one of them it does not say"
    if heard.authored:
        return "current", made
    if heard.told is not None:
        return "older", f"{tense} not heard of {of} yet{seen}"
    if heard.knew:
        return "unknown", f"knew of {of} when it last changed something; whether it has it is not known"
    return "unknown", "has not told yet what it has" if heard.online else "what it has is not known"


def everywhere(path: str, holdings: Sequence[tuple[str, bool, Holding]]) -> str:
    """Of a file that is up to date here: where else it is. ``holdings`` are the other machines: name, online, what it has."""
    current = [machine for machine, _, has in holdings if has == "current"]
    others = [machine for machine, _, has in holdings if has != "current"]
    said = f"“{path}” is up to date on this machine"
    if not holdings:
        return f"{said}; nobody else has joined yet."
    said += f" and on {_and(current)}" if current else ""
    return said + (f". It is not known whether {_and(others)} {'has' if len(others) == 1 else 'have'} it too." if others else ".")


def _and(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + f" and {names[-1]}" if len(names) > 1 else names[0]


def for_work(name: str) -> str:
    """What a file is that a program made for itself (engine/ignore): for people."""
    folded = fold(name)
    if folded.startswith(("~$", ".~lock.")):
        return "it says who has a document open"
    if folded.endswith(("-wal", "-shm", "-journal")):
        return "it is worth something only with the database beside it"
    if folded in (".ds_store", "thumbs.db", "desktop.ini"):
        return "it says how the folder is to be shown"
    return "it holds what is being worked on"
