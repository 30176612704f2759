"""The one door for msgpack: canonical, limited, and only the plain types.

What comes in is limited in size before it is parsed, walked afterwards (the timestamp extension and NaN slip past every option
of the library), and, where it is signed, packed again and compared: one value has exactly one encoding.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias, cast

import msgpack  # type: ignore[import-untyped]

from p2psync.values.errors import Malformed

Plain: TypeAlias = "None | bool | int | str | bytes | Sequence[Plain]"

MAX_DEPTH = 8
"""Nothing that we send is nested deeper; the library's own limit is above a thousand."""

MAX_ITEMS = 100_000
"""Items in one message, counted over all levels: 64 KiB of empty lists would otherwise cost seventy times their size."""

U64 = 2**64


def pack(value: Plain) -> bytes:
    """The canonical encoding of ``value``: msgpack, shortest forms, arrays only."""
    return cast(bytes, msgpack.packb(value, use_bin_type=True, strict_types=False))


def head_of(size: int) -> bytes:
    """What stands before ``size`` bytes in their canonical encoding."""
    if size < 1 << 8:
        return b"\xc4" + size.to_bytes(1, "big")
    return b"\xc5" + size.to_bytes(2, "big") if size < 1 << 16 else b"\xc6" + size.to_bytes(4, "big")


def unpack(data: bytes | memoryview, limit: int, *, canonical: bool = True) -> list[Any]:
    """The array that ``data`` (at most ``limit`` bytes) encodes.

    Raises:
        Malformed: too long, not msgpack, not an array, a type we do not use, or (``canonical``) not the one encoding of its value.
    """
    if len(data) > limit:
        raise Malformed(why=f"{len(data)} bytes where at most {limit} are allowed")
    try:
        value = msgpack.unpackb(data, raw=False, strict_map_key=True, max_map_len=0, max_array_len=MAX_ITEMS, ext_hook=_refuse)
    except (ValueError, msgpack.UnpackException, RecursionError, OverflowError) as e:
        raise Malformed(why=f"no valid msgpack ({type(e).__name__})") from None
    if not isinstance(value, list):
        raise Malformed(why="not an array")
    _walk(value)
    if canonical and pack(value) != data:
        raise Malformed(why="not in canonical form")
    return value


def _refuse(code: int, data: bytes) -> None:
    raise ValueError(f"extension type {code}")


def _walk(value: list[Any]) -> None:
    level: list[Any] = [value]
    items = 0
    for _ in range(MAX_DEPTH + 1):
        below: list[Any] = []
        for item in level:
            if type(item) is list:
                items += len(item)
                below.extend(item)
            elif type(item) is int:
                if not 0 <= item < U64:
                    raise Malformed(why="a number out of range")
            elif item is not None and type(item) not in (str, bytes, bool):
                raise Malformed(why=f"a value of type {type(item).__name__}")
        if items > MAX_ITEMS:
            raise Malformed(why="too many items")
        if not below:
            return
        level = below
    raise Malformed(why="nested too deeply")


def fields(value: object, *kinds: type | tuple[type, ...]) -> list[Any]:
    """``value`` as an array whose items are of exactly these ``kinds``, in order.

    Raises:
        Malformed: not an array, another length, another type.
    """
    if type(value) is not list or len(value) != len(kinds):
        raise Malformed(why=f"an array of {len(kinds)} fields was expected")
    for index, kind in enumerate(kinds):
        found = type(value[index])
        if found is not kind and (type(kind) is type or found not in kind):  # type: ignore[operator]
            raise Malformed(why=f"field {index} has the wrong type")
    return value


def exactly(data: object, size: int) -> bytes:
    """``data`` as bytes of exactly this ``size``.

    Raises:
        Malformed: anything else.
    """
    if type(data) is not bytes or len(data) != size:
        raise Malformed(why=f"{size} bytes were expected")
    return data
