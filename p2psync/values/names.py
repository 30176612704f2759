"""Names that cannot be wrong: identities of mandates, devices and records, names for people, and paths inside a mandate.

A ``RelPath`` is checked against every rule of docs/protocol.md once, when it is made; from then on nobody checks.
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import NewType

from p2psync.values.errors import BadName, BadPath

MandateId = NewType("MandateId", bytes)
"""32 bytes: a hash that commits to the genesis of the mandate."""
DeviceId = NewType("DeviceId", bytes)
"""32 bytes: the Ed25519 key with which the device signs."""
RecordId = NewType("RecordId", bytes)
"""32 bytes: the hash of a record's envelope."""
InviteId = NewType("InviteId", bytes)
"""16 random bytes that name one invitation."""

PREFIX = ".p2psync"
"""What our own files beside the user's begin with; such names are never shared."""

MAX_PATH = 1024
MAX_COMPONENT = 255
MAX_DEPTH = 32

_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)", re.IGNORECASE)
_HIDDEN = {"Cf", "Zl", "Zp", "Cs"}
"""Unicode categories that show nothing or turn the reading direction: format, line and paragraph separators, surrogates."""


def fold(name: str) -> str:
    """What two names have in common when some file system would take one for the other: NFC and case-folded."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def escaped(text: str) -> str:
    """``text`` fit for a terminal, a log or a page: control and invisible characters are spelled out."""
    return "".join(c if c.isprintable() and unicodedata.category(c) not in _HIDDEN else f"\\u{ord(c):04x}" for c in text)


def label(text: str, limit: int = 64) -> str:
    """A name for a person, a device or a mandate: NFC, visible, not empty, at most ``limit`` bytes of UTF-8.

    Raises:
        BadName: with the reason.
    """
    name = unicodedata.normalize("NFC", text).strip()
    if not name:
        raise BadName(name=escaped(text), why="it is empty")
    if escaped(name) != name:
        raise BadName(name=escaped(text), why="it contains invisible characters")
    if len(name.encode()) > limit:
        raise BadName(name=escaped(text), why=f"it is longer than {limit} bytes")
    return name


@lru_cache(maxsize=1 << 12)
def component_fault(name: str) -> str | None:
    """Why ``name`` cannot be one component of a shared path, or None when it can."""
    if name in ("", ".", ".."):
        return "an empty name, “.” and “..” are no names"
    if any(c in name for c in '/\\:<>"|?*'):
        return 'one of / \\ : < > " | ? * is in it, which Windows cannot store'
    if any(ord(c) < 32 or ord(c) == 127 for c in name):
        return "a control character is in it"
    if any(unicodedata.category(c) in _HIDDEN for c in name):
        return "an invisible character is in it"
    if name[-1] in ". ":
        return "it ends with a dot or a space, which Windows drops"
    if _RESERVED.fullmatch(name.split(".")[0].rstrip(" ")):
        return "Windows keeps this name for a device"
    if fold(name).startswith(PREFIX):
        return f"names that begin with {PREFIX} belong to p2psync"
    if len(name.encode()) > MAX_COMPONENT:
        return f"it is longer than {MAX_COMPONENT} bytes"
    return None


@dataclass(frozen=True, slots=True, order=True)
class RelPath:
    """A path inside a mandate, as it travels: relative, ``/`` between components, NFC.

    Raises:
        BadPath: on construction, for anything that is not exactly that, with the reason.
    """

    text: str

    def __post_init__(self) -> None:
        fault = _path_fault(self.text)
        if fault:
            raise BadPath(path=escaped(self.text), why=fault)

    @classmethod
    def from_disk(cls, *parts: str) -> "RelPath":
        """The path of names found on a disk, brought to NFC.

        Raises:
            BadPath: one of the names cannot be shared (undecodable bytes included).
        """
        return cls("/".join(part if part.isascii() else unicodedata.normalize("NFC", part) for part in parts))

    @property
    def parts(self) -> tuple[str, ...]:
        """The components, outermost first."""
        return tuple(self.text.split("/"))

    @property
    def top(self) -> str:
        """The first component: the name of the attachment that the path belongs to."""
        return self.text.partition("/")[0]

    @property
    def name(self) -> str:
        """The last component."""
        return self.text.rpartition("/")[2]

    @property
    def parent(self) -> "RelPath | None":
        """The directory the path is in, or None for the name of an attachment."""
        above = self.text.rpartition("/")[0]
        return RelPath(above) if above else None

    @property
    def fold(self) -> str:
        """Equal for two paths that some file system would take for one."""
        return fold(self.text)

    def __truediv__(self, name: str) -> "RelPath":
        return RelPath(f"{self.text}/{name}")

    def __str__(self) -> str:
        return self.text


_PLAIN = re.compile(
    r"(?:(?!(?:con|prn|aux|nul|com\d|lpt\d)(?:[ ./]|$))\w(?:[\w ().+,=&#@!%'-]{0,126}[\w)])?(?:/|$)){1,32}(?<!/)", re.ASCII | re.IGNORECASE
)
"""What nearly all paths look like, and what surely nothing is wrong with: a quick yes, and never a no."""


def _path_fault(text: str) -> str | None:
    if len(text) <= MAX_PATH and _PLAIN.fullmatch(text):
        return None
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return "it is not valid Unicode"
    parts = text.split("/")
    if size > MAX_PATH:
        return f"it is longer than {MAX_PATH} bytes"
    if len(parts) > MAX_DEPTH:
        return f"it is more than {MAX_DEPTH} folders deep"
    if not unicodedata.is_normalized("NFC", text):
        return "it is not in Unicode normal form C"
    return next((fault for fault in map(component_fault, parts) if fault), None)
