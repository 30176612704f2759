"""A kill -9 at one chosen step: whatever touches the disk is counted, and from the chosen one on nothing touches it any more."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from p2psync.store import carryout, swap
from p2psync.store.ledger import Ledger
from p2psync.store.vault import Vault

_SYSTEM = ("rename", "replace", "link", "unlink", "mkdir", "rmdir", "ftruncate", "pwrite", "fchmod", "utime", "fsync")
_STEPS = [(carryout, "put_new"), (carryout, "put_over"), (carryout, "take_away"), (swap, "swap"), (Vault, "keep"), (Vault, "remove")]


class Killed(BaseException):
    """The process is gone."""


class Killing:
    """Steps are counted; the one with the number ``at`` is the last: nothing of it is done, or all of it, if ``after``."""

    def __init__(self, at: int | None, after: bool) -> None:
        self.at, self.after = at, after
        self.steps: list[str] = []
        self.dead = False

    def around(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            self.begin(name)
            result = real(*args, **kwargs)
            self.end()
            return result

        return step

    def begin(self, name: str) -> None:
        if self.dead:
            raise Killed
        self.steps.append(name)
        if self._is_now() and not self.after:
            self._kill()

    def end(self) -> None:
        if self.dead or (self._is_now() and self.after):
            self._kill()

    def _is_now(self) -> bool:
        return self.at is not None and len(self.steps) == self.at + 1

    def _kill(self) -> None:
        self.dead = True
        raise Killed


@contextmanager
def killing(at: int | None = None, *, after: bool = False) -> Iterator[Killing]:
    """Within the block, the process is killed at step ``at`` (the block then ends silently); with None, steps are only counted."""
    kill = Killing(at, after)
    saved = [(place, name, getattr(place, name)) for place, name in [*((os, name) for name in _SYSTEM), *_STEPS, (Ledger, "write")]]
    for place, name, real in saved[:-1]:
        setattr(place, name, kill.around(name, real))
    Ledger.write = _write(kill, Ledger.write)  # type: ignore[method-assign]
    try:
        yield kill
    except Killed:
        pass
    finally:
        for place, name, real in saved:
            setattr(place, name, real)


def _write(kill: Killing, real: Any) -> Any:
    @contextmanager
    def write(self: Ledger) -> Iterator[sqlite3.Connection]:
        if self._writer.in_transaction:
            with real(self) as db:
                yield db
            return
        with real(self) as db:
            yield db
            kill.begin("commit")
        kill.end()

    return write
