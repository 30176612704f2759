"""In which order each of several members asks for the parts of something that all of them want at once.

Each begins with a share of its own, so that the one who has all of it gives each part once; the rest follows in a random order, for what
the others have by then comes from them. Runs stay together: who has it reads it from a disk.
"""

from collections.abc import Sequence
from typing import TypeVar

from p2psync.values.digest import content_digest

RUN = 32
"""Parts that stay together, at most; fewer where there are few, so that several members do not go through them side by side."""

T = TypeVar("T")


def in_turn(parts: Sequence[T], place: int, of: int, seed: bytes) -> list[T]:
    """``parts`` as the member at this ``place`` (from 0) among so many (``of``) asks for them; as they are for one that is alone.

    ``seed`` is another one for each member, so that each goes on in another order.
    """
    if of < 2:
        return list(parts)
    start, end = len(parts) * place // of, len(parts) * (place + 1) // of
    run = max(min(len(parts) // (8 * of), RUN), 1)
    runs = [parts[at : min(at + run, stop)] for first, stop in ((0, start), (end, len(parts))) for at in range(first, stop, run)]
    at_random = sorted(range(len(runs)), key=lambda number: content_digest(seed + number.to_bytes(4, "big")))
    return [*parts[start:end], *(part for number in at_random for part in runs[number])]
