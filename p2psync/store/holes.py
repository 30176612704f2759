"""Where a sparse file holds data, in one place for every platform.

Linux and macOS by ``lseek(2)`` with SEEK_DATA and SEEK_HOLE. Windows would need FSCTL_QUERY_ALLOCATED_RANGES. A disk that cannot tell
has data everywhere, which costs time and nothing else.
"""

import errno
import os
from collections.abc import Iterator

from p2psync.values.content import Chunk


class Filled:
    """The stretches of an open file of ``size`` bytes that hold data; to be asked in rising order."""

    def __init__(self, fd: int, size: int) -> None:
        self._stretches = self._walk(fd, size)
        self._begin, self._end = next(self._stretches, (size, size))

    def touches(self, chunk: Chunk) -> bool:
        """Whether any byte of ``chunk`` is data; what the file system does not tell counts as data."""
        while self._end <= chunk.offset:
            stretch = next(self._stretches, None)
            if stretch is None:
                return False
            self._begin, self._end = stretch
        return self._begin < chunk.offset + chunk.size

    @staticmethod
    def _walk(fd: int, size: int) -> Iterator[tuple[int, int]]:
        at = 0
        while at < size:
            try:
                begin = os.lseek(fd, at, os.SEEK_DATA)
                at = os.lseek(fd, begin, os.SEEK_HOLE)
            except OSError as error:
                if error.errno == errno.ENXIO:  # from here on there is only a hole
                    return
                begin, at = at, size  # this disk cannot tell
            yield begin, at
