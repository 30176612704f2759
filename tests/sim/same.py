"""Everything that differs from run to run is given by a seed here: the order of tasks, random bytes, the clocks, threads.

Within ``repeatable`` the product's own code runs as it is, in one thread; whatever it would ask the system for comes from the seed and
from the run's clock. Two runs of one seed in processes with the same PYTHONHASHSEED are the same, step by step.
"""

import gc
import math
import os
import random
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import nacl.bindings
import trio
from trio._core._run import GLOBAL_RUN_CONTEXT

from p2psync.store import powercut, smallfile
from tests.lan.fake_lan import in_place

BASE_NS = 4_102_444_800 * 1_000_000_000
"""Nanoseconds since 1970 at which a run begins, on a machine whose clock is right: far from today, so that both are told apart."""

skew: ContextVar[Callable[[], int]] = ContextVar("skew", default=lambda: 0)
"""By how many nanoseconds the clock of the machine, whose task this is, is wrong."""

boot: ContextVar[Callable[[], int]] = ContextVar("boot", default=lambda: 0)
"""How often the power of the machine, whose task this is, has gone."""


def monotonic() -> float:
    """The run's own seconds."""
    return float(trio.current_time())


def true_ns() -> int:
    """What a right clock shows."""
    return BASE_NS + int(trio.current_time() * 1e9)


def _time_ns() -> int:
    return true_ns() + skew.get()()


class RunClock(trio.abc.Clock):
    """The clock of a run, from ``now`` in seconds on: whenever nobody has anything to do, it is at once as late as what is next."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def start_clock(self) -> None:
        """Nothing goes by itself."""

    def current_time(self) -> float:
        return self.now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """trio asks when no task is runnable: the only thing that can happen next is what is due then."""
        if GLOBAL_RUN_CONTEXT.runner.entry_queue.size():
            return 0.0
        if deadline == math.inf:
            raise Endless("everybody waits for ever")
        self.now = max(self.now, deadline)
        return 0.0


class Endless(BaseException):
    """Something goes on and on without time passing."""


AT_ONCE = 3000
"""So much blocking work at one instant of the run's clock is no work but a circle."""
_count = [0.0, 0.0]


async def _inline(work: Callable[..., Any], *args: object, **_: object) -> Any:
    """Blocking work is done by the task that asks for it; others may run before and after it."""
    now = trio.current_time()
    _count[:] = [now, _count[1] + 1 if _count[0] == now else 0]
    if _count[1] > AT_ONCE:
        raise Endless(f"I/O goes on and on at {now:.3f} s: {getattr(work, '__qualname__', work)}")
    return await in_place(work, *args)


_opened = lru_cache(2000)(nacl.bindings.crypto_sign_open)
"""Each machine checks each signature for itself; here it is checked once for all of them."""


def _places(functions: list[Any], modules: int) -> list[tuple[Any, str, Any]]:
    """Where the product has these functions from the system; searched once for so many modules."""
    if _found and _found[0][0] == modules:
        return _found[0][1]
    owners = [os, time, secrets, *(module for name, module in list(sys.modules.items()) if name.startswith("p2psync"))]
    places = [(owner, name, value) for owner in owners for name, value in vars(owner).items() if any(value is one for one in functions)]
    _found[:] = [(modules, places)]
    return places


_found: list[tuple[int, list[tuple[Any, str, Any]]]] = []


@contextmanager
def repeatable(seed: int) -> Iterator[None]:
    """Within the block, which must surround ``trio.run``, a seed decides everything."""
    chance = random.Random(f"bytes {seed}")
    replaced = [
        (time.time_ns, _time_ns),
        (time.time, lambda: _time_ns() / 1e9),
        (time.monotonic, monotonic),
        (powercut.this_boot, lambda: b"%d" % (1 + boot.get()())),
        (os.urandom, chance.randbytes),
        (secrets.token_bytes, lambda size=32: chance.randbytes(size)),
        (secrets.token_hex, lambda size=32: chance.randbytes(size).hex()),
    ]
    saved: list[tuple[Any, str, Any]] = [(trio.to_thread, "run_sync", trio.to_thread.run_sync)]
    saved += [(nacl.bindings, "crypto_sign_open", nacl.bindings.crypto_sign_open), (smallfile, "OWN_END", smallfile.OWN_END)]
    run: Any = trio._core._run  # type: ignore[attr-defined]
    saved += [(run, "_ALLOW_DETERMINISTIC_SCHEDULING", run._ALLOW_DETERMINISTIC_SCHEDULING), (run, "_r", run._r)]
    places = _places([real for real, _ in replaced], len(sys.modules))
    saved += places
    names = tempfile._get_candidate_names()  # type: ignore[attr-defined]
    state = random.getstate()
    try:
        random.seed(f"random {seed}")
        trio.to_thread.run_sync = _inline  # type: ignore[assignment]
        nacl.bindings.crypto_sign_open = _opened
        smallfile.OWN_END = "-00000000.part"  # each process draws one when it begins
        run._ALLOW_DETERMINISTIC_SCHEDULING, run._r = True, random.Random(f"order {seed}")
        tempfile._name_sequence = (f"{chance.randrange(1 << 40):010x}" for _ in iter(int, 1))  # type: ignore[attr-defined]
        for owner, name, value in places:
            setattr(owner, name, next(ours for real, ours in replaced if value is real))
        gc.disable()  # a run is short, and the time that it takes is not the seed's to say
        yield
    finally:
        gc.enable()
        for owner, name, value in saved:
            setattr(owner, name, value)
        random.setstate(state)
        tempfile._name_sequence = names  # type: ignore[attr-defined]
