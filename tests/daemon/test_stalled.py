"""A member that falls silent in the middle of a transfer holds up nobody who can have the rest from somebody else."""

from __future__ import annotations

import random

import pytest
import trio
from trio.testing import MockClock

from p2psync.daemon.conversation import Conversation
from p2psync.engine import messages as m
from tests.lan.fake_lan import Lan, Machine, until

BOOKS = "Dupont SA"
TEXT = random.Random(1).randbytes(2_000_000).hex()


@pytest.mark.parametrize("what", ["the cable is pulled", "it only stops answering"])
async def test_the_rest_is_asked_of_another_within_moments(
    lan: Lan, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """It is declared dead after 30 s, or never; the third machine has its copy after about two."""
    anna = lan.machine("Anna")
    bruno = lan.machine("Bruno", peers=(anna,))
    clara = lan.machine("Clara", peers=(anna, bruno))
    stalled: list[Machine] = []
    at = 0.0
    serve = Conversation._serve_chunks

    async def serve_some(self: Conversation, want: m.WantChunks) -> None:
        nonlocal at
        here = next(one for one in (anna, bruno) if one.mandate() is self.mandate)
        if self.device != clara.office.device or stalled not in ([], [here]):
            await serve(self, want)
            return
        if not stalled:
            stalled.append(here)
            await serve(self, m.WantChunks(want.handle, want.ids[:3]))
            at = trio.current_time()
        if what == "the cable is pulled":
            here.unplug()
        await trio.sleep_forever()

    async with anna.on(), bruno.on():
        await anna.create(BOOKS, anna.write("one.csv", "one"))
        await bruno.subscribe(await anna.invite(BOOKS, "Bruno"))
        async with clara.on():
            await clara.subscribe(await anna.invite(BOOKS, "Clara"))
            await until(lambda: clara.reads(f"{BOOKS}/one.csv") == "one" and clara.talks(anna) and clara.talks(bruno))
        await anna.ask("/v1/attach", mandate=BOOKS, paths=[str(anna.write("large.csv", TEXT))])
        await until(lambda: bruno.reads(f"{BOOKS}/large.csv") == TEXT)
        async with clara.on():
            monkeypatch.setattr(Conversation, "_serve_chunks", serve_some)
            await until(lambda: clara.reads(f"{BOOKS}/large.csv") == TEXT)
            assert stalled, "somebody stopped in the middle"
            assert trio.current_time() - at < 3
            assert clara.sees(stalled[0]) is not None, "the silent one has not been given up yet"
