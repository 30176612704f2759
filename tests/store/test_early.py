"""What came before anybody asked for it is held for a while, within its bound, and given out once."""

import threading

from hypothesis import given
from hypothesis import strategies as st

from p2psync.store.early import Early
from p2psync.values.digest import content_digest

BLOBS = st.lists(st.binary(max_size=60), max_size=30)


def test_what_is_held_is_taken_once() -> None:
    early = Early()
    early.put(content_digest(b"one"), b"one")
    assert early
    assert early.take(content_digest(b"one")) == b"one"
    assert early.take(content_digest(b"one")) is None
    assert not early


@given(BLOBS, st.integers(0, 200))
def test_the_bound_holds_and_the_oldest_give_way(blobs: list[bytes], most: int) -> None:
    early = Early(most)
    for data in blobs:
        early.put(content_digest(data), data)
    latest = list(dict.fromkeys(data for data in reversed(blobs) if len(data) <= most))  # the latest first
    held = {data for data in latest if early.take(content_digest(data)) is not None}
    assert sum(map(len, held)) <= most
    sizes = [sum(map(len, latest[: n + 1])) for n in range(len(latest))]
    assert held >= {data for data, size in zip(latest, sizes, strict=True) if size <= most}
    assert not early


def test_many_threads_may_put_and_take() -> None:
    early = Early(1000)
    blobs = [bytes([n]) * 50 for n in range(60)]

    def play() -> None:
        for data in blobs * 20:
            early.put(content_digest(data), data)
            early.take(content_digest(blobs[len(data) % 60]))

    threads = [threading.Thread(target=play) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held = [data for data in blobs if early.take(content_digest(data)) is not None]
    assert sum(map(len, held)) <= 1000
    assert not early
