"""What is wrong at the moment, by what it is about, each with the time since when it is."""

from collections.abc import Callable
from typing import TypeVar

from p2psync.values.errors import UserError

K = TypeVar("K")


class Troubles(dict[K, UserError]):
    """Errors that a person should know of until they are over. ``now_ms`` tells the wall clock."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        super().__init__()
        self._now_ms = now_ms
        self._since: dict[K, int] = {}

    def __setitem__(self, key: K, error: UserError) -> None:
        if key not in self or str(self[key]) != str(error):
            self._since[key] = self._now_ms()
        super().__setitem__(key, error)

    def since(self, key: K) -> int:
        """Since when (ms since 1970) that trouble is there."""
        return self._since[key]
