"""Shapes: what a field of a message may be. A shape stands in the annotation of the field and is the only law about it.

    handle: Annotated[int, unsigned(16)]

It reads a plain value that came from outside, or raises ``Malformed``; it writes its value as a plain one; and it knows how many bytes
its longest value packs to, so that the size limit of every message follows from its fields.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

from p2psync.values.errors import Malformed
from p2psync.values.keys import Secret
from p2psync.values.packing import Plain

_HEADER = 5
"""Bytes of the longest msgpack header that our sizes need."""


def _as_it_is(value: Any) -> Plain:
    return value  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Shape:
    """One kind of value: the bytes its longest one packs to, how it is read (or refused as malformed) and how it is written."""

    most: int
    read: Callable[[Any], Any]
    write: Callable[[Any], Plain] = _as_it_is


def unsigned(bits: int, least: int = 0) -> Shape:
    """A number of so many bits, not below ``least``."""

    def read(plain: Any) -> int:
        if type(plain) is not int or not least <= plain < 1 << bits:
            raise Malformed(why=f"a number of {bits} bits from {least} on was expected")
        return plain

    return Shape(1 + bits // 8, read, int)


def exactly(*sizes: int) -> Shape:
    """Bytes of exactly one of these sizes."""

    def read(plain: Any) -> bytes:
        if type(plain) is not bytes or len(plain) not in sizes:
            raise Malformed(why=f"{' or '.join(map(str, sizes))} bytes were expected")
        return plain

    return Shape(2 + max(sizes), read, bytes)


def secret() -> Shape:
    """Thirty-two bytes which, once read, do not show themselves."""
    inner = exactly(32)
    return Shape(inner.most, lambda plain: Secret(inner.read(plain)), bytes)


def blob(limit: int, step: int = 1) -> Shape:
    """At most ``limit`` bytes, a multiple of ``step``."""

    def read(plain: Any) -> bytes:
        if type(plain) is not bytes or len(plain) > limit or len(plain) % step:
            raise Malformed(why=f"at most {limit} bytes were expected")
        return plain

    return Shape(_HEADER + limit, read, bytes)


def utf8(limit: int) -> Shape:
    """Text of at most ``limit`` bytes of UTF-8. It may hold anything: whoever shows it escapes it."""

    def read(plain: Any) -> str:
        if type(plain) is not str or len(plain.encode()) > limit:
            raise Malformed(why=f"a text of at most {limit} bytes was expected")
        return plain

    return Shape(_HEADER + limit, read)


def many(each: Shape, limit: int) -> Shape:
    """An array of at most ``limit`` values of one shape, as a tuple."""

    def read(plain: Any) -> tuple[Any, ...]:
        if type(plain) is not list or len(plain) > limit:
            raise Malformed(why=f"an array of at most {limit} was expected")
        return tuple([each.read(item) for item in plain])

    return Shape(_HEADER + limit * each.most, read, lambda value: [each.write(item) for item in value])


def group(*shapes: Shape) -> Shape:
    """An array of exactly these shapes, as a tuple."""

    def read(plain: Any) -> tuple[Any, ...]:
        if type(plain) is not list or len(plain) != len(shapes):
            raise Malformed(why=f"an array of {len(shapes)} was expected")
        return tuple([shape.read(item) for shape, item in zip(shapes, plain, strict=True)])

    def write(value: Any) -> list[Plain]:
        return [shape.write(item) for shape, item in zip(shapes, value, strict=True)]

    return Shape(_HEADER + sum(shape.most for shape in shapes), read, write)


def struct(kind: type[Any]) -> Shape:
    """A dataclass, as the array of its fields; each field carries its shape in its annotation."""
    hints = get_type_hints(kind, include_extras=True)
    names = [field.name for field in fields(kind)]
    inner = group(*(hints[name].__metadata__[0] for name in names))
    return Shape(
        inner.most,
        lambda plain: kind(*inner.read(plain)),
        lambda value: inner.write([getattr(value, name) for name in names]),
    )
