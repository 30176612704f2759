"""What foreign threads say arrives on trio's side once, in order, and never breaks anything."""

import threading

import pytest
import trio
import trio.testing

from p2psync.edge.bridge import Bridge, Taken


async def test_items_arrive_in_the_order_in_which_they_were_last_put():
    bridge: Bridge[str] = Bridge(10)
    for item in ("there", "gone", "there"):
        bridge.put(item)
    assert await bridge.drain() == Taken(("gone", "there"), lost=False)


async def test_threads_wake_a_waiting_task():
    bridge: Bridge[tuple[int, int]] = Bridge(10_000)

    def speak(n: int) -> None:
        for i in range(500):
            bridge.put((n, i))

    threads = [threading.Thread(target=speak, args=[n]) for n in range(4)]
    for thread in threads:
        thread.start()
    seen: list[tuple[int, int]] = []
    with trio.fail_after(5):
        while len(seen) < 2000:
            seen += (await bridge.drain()).items
    for thread in threads:
        thread.join()
    assert all([i for m, i in seen if m == n] == list(range(500)) for n in range(4))


async def test_what_does_not_fit_is_dropped_oldest_first_and_that_is_said_once():
    bridge: Bridge[int] = Bridge(3)
    for item in range(5):
        bridge.put(item)
    assert await bridge.drain() == Taken((2, 3, 4), lost=True)
    bridge.put(9)
    assert await bridge.drain() == Taken((9,), lost=False)


async def test_waiting_in_vain_loses_nothing():
    bridge: Bridge[str] = Bridge(10)
    with trio.move_on_after(0):
        await bridge.drain()
    bridge.put("here")
    with trio.CancelScope() as scope:
        scope.cancel()
        await bridge.drain()
    assert (await bridge.drain()).items == ("here",)


async def test_nothing_to_take_means_waiting(autojump_clock):
    bridge: Bridge[str] = Bridge(10)
    bridge.put("a")
    await bridge.drain()
    await trio.testing.wait_all_tasks_blocked()
    with trio.move_on_after(10) as scope:
        await bridge.drain()
    assert scope.cancelled_caught


def test_a_thread_may_speak_after_trio_has_ended():
    async def main() -> Bridge[str]:
        return Bridge(10)

    trio.run(main).put("too late")


@pytest.fixture
def autojump_clock():
    return trio.testing.MockClock(autojump_threshold=0)
