"""Real disks that are full, read-only, broken or gone, and a watcher that hears nothing: nothing is torn, lost or deleted; the status names
the file, the machine, the reason and the next action; and when the disk is well again all goes on by itself.

By default a few of these are told, and the waits cut short by asking (``p2psync wait`` has everything tried again at once); with
P2PSYNC_FAULTS=all every one, and nobody asks.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.real.iosteps import MISSING
from tests.real.killings import content
from tests.real.machines import files_below
from tests.real.mounts import READY, Mounts
from tests.real.victims import BOOKS, Machine, Pair, Watching, save

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not READY, reason="needs root, to mount file systems"),
    pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
]

BY_ITSELF = os.environ.get("P2PSYNC_FAULTS") == "all"
LIMIT_S = 75.0 if BY_ITSELF else 20.0
further = pytest.mark.skipif(not BY_ITSELF, reason="one of many: P2PSYNC_FAULTS=all tells every one")
BIG = 400_000


@pytest.fixture
def mounts() -> Iterator[Mounts]:
    mounted = Mounts()
    yield mounted
    mounted.close()


@pytest.fixture
def pair(tmp_path: Path, mounts: Mounts) -> Iterator[Pair]:
    pair = Pair(tmp_path)
    yield pair
    pair.end()


def begin(pair: Pair) -> None:
    for name in ("compta.cre", "recus/first", "recus/sub/second"):
        save(pair.anna.folder / name, content(0))
    pair.begin().join("compta.cre", "recus")


def goes_on(pair: Pair, desk: Machine) -> None:
    """The fault is over: everything is the same soon, without anybody doing anything, or at once when somebody asks."""
    if not BY_ITSELF:
        with suppress(AssertionError):
            desk.does("wait", BOOKS, "--timeout", "1")
    pair.rest(limit_s=LIMIT_S)
    assert not pair.faults()


def told(desk: Machine, name: str, *words: str) -> dict[str, object]:
    """Wait until the status says of ``name`` all these words, in one sentence with its next action."""

    def holds() -> dict[str, object] | None:
        found = desk.attention(BOOKS).get(name)
        said = f"{found['reason']} {found['action']}" if found else ""
        return found if all(word in said for word in words) else None

    return dict(desk.until(f"the status says {words} of {name}", holds))


def problem(desk: Machine, *words: str) -> None:
    def holds() -> bool:
        return any(all(word in f"{p['message']} {p['action']}" for word in words) for p in desk.status()["problems"])

    desk.until(f"a problem says {words}", holds)


# ---- full


def test_the_disk_with_the_files_is_full(pair: Pair, mounts: Mounts) -> None:
    mounts.small(pair.bruno.folder, "320k")
    begin(pair)
    with Watching(pair.bruno.folder) as watching:
        watching.always("compta.cre", "recus/first")
        save(pair.anna.folder / "compta.cre", content(1, BIG))
        save(pair.anna.folder / "recus/first", content(1))
        found = told(pair.bruno, "compta.cre", "compta.cre", "left of", "Make room")
        assert found["state"] == "waiting"
        pair.bruno.until("the other file came in all the same", lambda: (pair.bruno.folder / "recus/first").read_bytes() == content(1))
        assert (pair.bruno.folder / "compta.cre").read_bytes() == content(0)
        assert "Make room" in pair.bruno.does("status")
        mounts.again(pair.bruno.folder, "size=4m")
        goes_on(pair, pair.bruno)
    assert (pair.bruno.folder / "compta.cre").read_bytes() == content(1, BIG)
    assert not watching.faults


@pytest.mark.parametrize("whose", [pytest.param("receiver", marks=further), "sender"])
def test_the_disk_with_the_home_is_full(pair: Pair, mounts: Mounts, whose: str) -> None:
    desk = pair.bruno if whose == "receiver" else pair.anna
    mounts.small(desk.state, "6m")
    begin(pair)
    ballast = desk.state / "ballast"
    _fill(ballast)
    with Watching(pair.bruno.folder) as watching:
        watching.always("compta.cre", "recus/first")
        save(pair.anna.folder / "compta.cre", content(1, BIG))
        problem(desk, str(desk.state), "full")
        assert desk.alive and "full" in desk.says("status").out
        assert (pair.bruno.folder / "compta.cre").read_bytes() == content(0)
        ballast.unlink()
        goes_on(pair, desk)
    assert (pair.bruno.folder / "compta.cre").read_bytes() == content(1, BIG)
    assert not desk.status()["problems"]
    assert not watching.faults


def _fill(ballast: Path) -> None:
    """Leave no byte free."""
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        for size in (65536, 4096):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))


# ---- read-only


@further
def test_the_disk_with_the_files_is_read_only(pair: Pair, mounts: Mounts) -> None:
    mounts.small(pair.bruno.folder, "4m")
    begin(pair)
    mounts.again(pair.bruno.folder, "ro")
    save(pair.anna.folder / "compta.cre", content(1))
    (pair.anna.folder / "recus/first").unlink()
    told(pair.bruno, "compta.cre", "compta.cre", "read-only", "Mount it")
    told(pair.bruno, "recus/first", "recus/first", "read-only", "Mount it")
    assert (pair.bruno.folder / "compta.cre").read_bytes() == content(0)
    mounts.again(pair.bruno.folder, "rw")
    goes_on(pair, pair.bruno)
    assert (pair.bruno.folder / "compta.cre").read_bytes() == content(1)
    assert not (pair.bruno.folder / "recus/first").exists()


@further
@pytest.mark.parametrize("whose", ["receiver", "sender"])
def test_the_disk_with_the_home_is_read_only(pair: Pair, mounts: Mounts, whose: str, tmp_path: Path) -> None:
    desk = pair.bruno if whose == "receiver" else pair.anna
    image = tmp_path / "disk.img"
    mounts.image(desk.state, image)
    begin(pair)
    mounts.abort(desk.state)
    save(pair.anna.folder / "compta.cre", content(1))
    problem(desk, str(desk.state))
    assert desk.alive
    assert (pair.bruno.folder / "compta.cre").read_bytes() == content(0)
    desk.kill()  # a person has the disk repaired, and starts p2psync again
    mounts.take_off(desk.state)
    mounts.image(desk.state, image)
    desk.up().answers()
    pair.rest()
    assert (pair.bruno.folder / "compta.cre").read_bytes() == content(1)
    assert not pair.faults()


# ---- gone


@pytest.mark.parametrize("whose", ["receiver", pytest.param("sender", marks=further)])
def test_a_disk_that_vanishes_deletes_nothing_and_may_come_back(pair: Pair, mounts: Mounts, whose: str, tmp_path: Path) -> None:
    desk, other = (pair.bruno, pair.anna) if whose == "receiver" else (pair.anna, pair.bruno)
    mounts.bound(desk.folder, tmp_path / "disk")
    begin(pair)
    before = files_below(other.folder)
    mounts.vanish(desk.folder)
    told(desk, "recus", "not there", "Mount")
    told(desk, "compta.cre", "compta.cre")
    save(other.folder / "recus/first", content(1))
    other.until("it is recorded", lambda: len(other.versions("recus/first")) == 2)
    assert files_below(other.folder) == before | {"recus/first": content(1)}
    assert not list(desk.folder.iterdir()), "something was written where the disk is not"
    mounts.bound(desk.folder, tmp_path / "disk")
    goes_on(pair, desk)
    assert files_below(desk.folder) == before | {"recus/first": content(1)}


# ---- unheard


@further
def test_saves_that_the_watcher_missed_are_found(pair: Pair) -> None:
    begin(pair)
    pair.anna.signal(signal.SIGSTOP)
    one, other = pair.anna.folder / "recus/one", pair.anna.folder / "recus/other"
    one.write_bytes(content(0))
    for _ in range(_limit("fs/inotify/max_queued_events") // 4 + 10):  # two events each way
        os.rename(one, other)
        os.rename(other, one)
    save(pair.anna.folder / "recus/sub/unheard", content(2))
    save(pair.anna.folder / "compta.cre", content(2))
    pair.anna.signal(signal.SIGCONT)
    for name in ("recus/sub/unheard", "compta.cre"):
        there = pair.bruno.folder / name
        pair.bruno.until(f"{name} has come", lambda there=there: there.exists() and there.read_bytes() == content(2))  # type: ignore[misc]
    pair.rest()
    assert not pair.faults()


def _limit(setting: str) -> int:
    return int(Path("/proc/sys", setting).read_text())


@further
@pytest.mark.skipif(not shutil.which("unshare"), reason="needs user namespaces, which have limits of their own")
def test_beyond_the_watch_limit_saves_are_found_by_looking(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.anna.within = ["unshare", "--user", "--map-root-user", "sh", "-c", 'echo 6 > /proc/sys/user/max_inotify_watches; exec "$@"', "-"]
    try:
        for number in range(8):
            save(pair.anna.folder / f"recus/{number}/a", content(0))
        pair.begin().join("recus")
        problem(pair.anna, "watch only", "sudo sysctl fs.inotify.max_user_watches=")
        for number in range(8):
            save(pair.anna.folder / f"recus/{number}/a", content(1))
        if not BY_ITSELF:
            pair.anna.does("wait", BOOKS, "--timeout", "5")
        pair.bruno.until(
            "all have come", lambda: all((pair.bruno.folder / f"recus/{n}/a").read_bytes() == content(1) for n in range(8)), 60
        )
    finally:
        pair.end()


# ---- broken


@further
@pytest.mark.parametrize(("code", "word"), [(errno.EIO, "disk"), (errno.EACCES, "right")])
def test_a_file_that_cannot_be_read_says_so_and_the_others_go_on(pair: Pair, code: int, word: str) -> None:
    begin(pair)
    pair.anna.steps.fail(pair.anna.folder / "recus/first", code)
    save(pair.anna.folder / "recus/first", content(1))
    save(pair.anna.folder / "recus/sub/second", content(1))
    told(pair.anna, "recus/first", "first", word)
    pair.bruno.until("the other has come", lambda: (pair.bruno.folder / "recus/sub/second").read_bytes() == content(1))
    assert (pair.bruno.folder / "recus/first").read_bytes() == content(0)
    pair.anna.steps.end()
    goes_on(pair, pair.anna)
    assert (pair.bruno.folder / "recus/first").read_bytes() == content(1)


@further
@pytest.mark.parametrize(("code", "word"), [(errno.EIO, "disk"), (errno.EACCES, "right"), (errno.ENOSPC, "full")])
def test_a_folder_that_cannot_be_written_says_so_and_the_others_go_on(pair: Pair, code: int, word: str) -> None:
    begin(pair)
    pair.bruno.steps.fail(pair.bruno.folder / "recus/sub", code)
    save(pair.anna.folder / "recus/sub/second", content(1))
    save(pair.anna.folder / "recus/first", content(1))
    assert told(pair.bruno, "recus/sub/second", "second", word)["action"]
    pair.bruno.until("the other has come", lambda: (pair.bruno.folder / "recus/first").read_bytes() == content(1))
    assert (pair.bruno.folder / "recus/sub/second").read_bytes() == content(0)
    pair.bruno.steps.end()
    goes_on(pair, pair.bruno)
    assert (pair.bruno.folder / "recus/sub/second").read_bytes() == content(1)
