"""How a message becomes bytes: a msgpack array of its number and its fields, limited before it is parsed.

The fields, with their shapes, are those of a frozen dataclass; ``@message(number)`` makes one of a class and enters it into ``KINDS``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar, dataclass_transform

from p2psync.engine.shapes import Shape, struct
from p2psync.values.errors import Malformed, PeerError
from p2psync.values.packing import head_of, pack, unpack

MAX_CONTROL = 256 * 1024
"""Bytes of every message that is not bulk."""


class UnknownMessage(PeerError):
    """The other machine speaks a newer language (message {number}). Update p2psync on this machine."""


class Message:
    """Anything a machine says in a session. ``NUMBER`` names its kind on the wire, ``LIMIT`` bounds its packed bytes."""

    __slots__ = ()
    NUMBER: ClassVar[int]
    LIMIT: ClassVar[int]
    SHAPE: ClassVar[Shape]

    def pack(self) -> bytes:
        """The bytes on the wire.

        Raises:
            ValueError: a field is not what the protocol allows; the fault is ours.
        """
        body = pack([self.NUMBER, *self._fields()])
        self._check(len(body))
        return body

    def parts(self) -> tuple[bytes, bytes]:
        """The bytes on the wire of a message whose last field is content: what stands before it, and the content, which is not copied.

        Raises:
            ValueError: as for ``pack``.
        """
        *fields, content = self._fields()
        head = pack([self.NUMBER, *fields, b""])[: -len(head_of(0))] + head_of(len(content))
        self._check(len(head) + len(content))
        return head, content

    def _fields(self) -> Any:
        fields = self.SHAPE.write(self)
        try:
            self.SHAPE.read(fields)
        except Malformed as fault:
            raise ValueError(f"{type(self).__name__}: {fault}") from None
        return fields

    def _check(self, size: int) -> None:
        if size > self.LIMIT:
            raise ValueError(f"a {type(self).__name__} of {size} bytes, more than {self.LIMIT}")


M = TypeVar("M", bound=Message)
KINDS: dict[int, type[Message]] = {}
"""Every kind of message by its number."""


@dataclass_transform(frozen_default=True)
def message(number: int, most: int = MAX_CONTROL) -> Callable[[type[M]], type[M]]:
    """Make a class a message: a frozen dataclass of this number, at most ``most`` bytes long, or less where its fields say so."""

    def enter(kind: type[M]) -> type[M]:
        kind = dataclass(frozen=True, slots=True)(kind)
        kind.NUMBER, kind.SHAPE = number, struct(kind)
        kind.LIMIT = min(most, kind.SHAPE.most)
        KINDS[number] = kind
        return kind

    return enter


def unpack_message(body: bytes | memoryview) -> Message:
    """The message that these bytes are.

    Raises:
        UnknownMessage: its number is none of ours.
        Malformed: anything else about it is wrong.
    """
    limit = limit_of(bytes(body[:2]))
    number, *fields = unpack(body, limit, canonical=limit <= MAX_CONTROL)  # packing bulk once more would cost a tenth of its speed
    return KINDS[number].SHAPE.read(fields)  # type: ignore[no-any-return]


def limit_of(start: bytes) -> int:
    """How many bytes a message may have that begins with these two: its array header and its number.

    Raises:
        UnknownMessage: the number is none of ours.
        Malformed: no message begins like this.
    """
    if len(start) < 2 or start[0] & 0xF0 != 0x90 or start[1] > 0x7F:
        raise Malformed(why="no message begins like this")
    kind = KINDS.get(start[1])
    if kind is None:
        raise UnknownMessage(number=start[1])
    return kind.LIMIT
