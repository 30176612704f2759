"""Python's own files, over the descriptors of a modelled disk: each write that reaches the system is a call like those of ``os``."""

from __future__ import annotations

import io
import os
from typing import Any

from tests.sim.kernel import Kernel
from tests.sim.real import real


def opening(kernel: Kernel) -> Any:
    """What stands in for ``open``."""

    class Raw(io.FileIO):
        def write(self, data: Any) -> int:
            return int(kernel.write(self.fileno(), data))

        def truncate(self, size: int | None = None) -> int:
            size = self.tell() if size is None else size
            kernel.ftruncate(self.fileno(), size)
            return size

        def close(self) -> None:
            if not self.closed and self.closefd:
                kernel.fds.pop(self.fileno(), None)
            super().close()

    def opener(path: Any, flags: int) -> int:
        return kernel.open(path, flags, 0o666)

    def opened(
        file: Any, mode: str = "r", buffering: int = -1, encoding: Any = None, errors: Any = None, newline: Any = None,
        closefd: bool = True, opener: Any = opener,
    ) -> Any:  # fmt: skip
        ours = file in kernel.fds if isinstance(file, int) else kernel.of(file) is not None
        if not ours:
            asked = None if opener is own else opener
            return real.io_open(file, mode, buffering, encoding, errors, newline, closefd, asked)
        raw = Raw(file, "".join(letter for letter in mode if letter in "rwax+"), closefd, opener)
        if buffering == 0:
            return raw
        buffer: Any = io.BufferedRandom(raw) if "+" in mode else io.BufferedReader(raw) if "r" in mode else io.BufferedWriter(raw)
        return buffer if "b" in mode else io.TextIOWrapper(buffer, encoding or "utf-8", errors, newline, buffering == 1)

    own = opener
    return opened


def text_of(name: str, path: str) -> Any:
    """A text file of the system that the model makes up."""
    return io.BytesIO(os.fsencode(name)) if path.endswith("maps") else io.StringIO(name)
