"""Changes in real folders are heard within milliseconds, and what could not be heard becomes a doubt."""

import errno
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import trio

from p2psync.edge import watcher as watcher_module
from p2psync.edge.observer import Heard
from p2psync.edge.watcher import Changes, Watcher, WatchLimit
from p2psync.store.smallfile import OWN_END

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="speaks of inotify")


@pytest.fixture
async def watcher(nursery, monkeypatch):
    monkeypatch.setattr(watcher_module, "_CHECK_S", 0.05)
    watcher = Watcher()
    await nursery.start(watcher.run)
    return watcher


async def heard(watcher: Watcher, enough) -> Changes:
    """What is heard until ``enough`` says so; of a path, what was heard last counts."""
    total = Changes()
    with trio.fail_after(5):
        while not enough(total):
            new = await watcher.changes()
            total = Changes((total.touched - new.closed) | new.touched, (total.closed - new.touched) | new.closed, total.doubt | new.doubt)
    return total


async def nothing_before(watcher: Watcher, marker: Path) -> Changes:
    """What is heard up to a file that is written now."""
    marker.write_text("now")
    found = await heard(watcher, lambda total: marker in total.closed)
    return Changes(found.touched - {marker}, found.closed - {marker}, found.doubt)


async def test_a_saved_file_is_closed_and_one_being_written_is_touched(watcher, tmp_path):
    books = tmp_path / "books.db"
    assert (await watcher.watch(tmp_path, recursive=True)).fault is None
    with books.open("w") as file:
        file.write("half")
        file.flush()
        assert books in (await heard(watcher, lambda total: books in total.touched)).touched
        file.write(" and half")
    assert await heard(watcher, lambda total: books in total.closed) == Changes(closed=frozenset({books}))


async def test_reading_is_not_heard(watcher, tmp_path):
    books = tmp_path / "books.db"
    books.write_text("as they were")
    await watcher.watch(tmp_path, recursive=True)
    for _ in range(3):
        books.read_text()
        os.listdir(tmp_path)
        os.stat(books)
    assert await nothing_before(watcher, tmp_path / "marker") == Changes()


async def test_a_file_replaced_by_a_rename_is_whole_at_once(watcher, tmp_path):
    await watcher.watch(tmp_path, recursive=False, only={"books.db"})
    books = tmp_path / "books.db"
    for content in ("one", "two"):
        (tmp_path / "tmp").write_text(content)
        os.replace(tmp_path / "tmp", books)
        assert await heard(watcher, lambda total: books in total.closed) == Changes(closed=frozenset({books}))


async def test_of_our_own_files_only_what_they_become_is_heard(watcher, tmp_path):
    await watcher.watch(tmp_path, recursive=True)
    books, ours = tmp_path / "books.db", tmp_path / ".p2psync-0.part"
    for content in ("one", "two"):
        ours.write_text(content)
        ours.chmod(0o600)
        os.replace(ours, books)
        assert await heard(watcher, lambda total: books in total.closed) == Changes(closed=frozenset({books}))
    os.replace(books, ours)
    assert await heard(watcher, lambda total: total.touched) == Changes(touched=frozenset({books}))
    ours.unlink()
    assert await nothing_before(watcher, tmp_path / "marker") == Changes()


async def test_what_this_process_puts_in_its_place_is_no_news(watcher, tmp_path):
    await watcher.watch(tmp_path, recursive=True)
    books, ours, anothers = tmp_path / "books.db", tmp_path / f".p2psync-0{OWN_END}", tmp_path / ".p2psync-0-00000000.part"
    ours.write_text("put here by us")
    os.rename(ours, books)
    assert await nothing_before(watcher, tmp_path / "marker") == Changes()
    anothers.write_text("put here by another p2psync")
    os.rename(anothers, tmp_path / "pay.db")
    books.write_text("saved")
    assert await heard(watcher, lambda total: books in total.closed) == Changes(closed=frozenset({books, tmp_path / "pay.db"}))


async def test_a_file_moved_in_from_elsewhere_is_whole_and_one_moved_out_is_gone(watcher, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.write_text("from a stick")
    await watcher.watch(here, recursive=True)
    os.rename(there, here / "books.db")
    assert (await heard(watcher, lambda total: total.closed)).closed == {here / "books.db"}
    os.rename(here / "books.db", there)
    assert (await heard(watcher, lambda total: total.touched)).touched == {here / "books.db"}


@pytest.mark.parametrize(
    ("kinds", "closed"),
    [
        (["touched", "closed"], True),
        (["closed", "attributes"], True),  # a copy is given its date and mode after it was closed
        (["closed", "touched"], False),
        (["attributes"], False),
        (["attributes", "closed"], True),
    ],
)
async def test_of_a_path_the_last_that_was_heard_counts(kinds, closed):
    watcher, path = Watcher(), Path("/books/a.db")
    for kind in kinds:
        watcher._bridge.put(Heard(path.parent, str(path), kind))
    assert await watcher.changes() == (Changes(closed=frozenset({path})) if closed else Changes(touched=frozenset({path})))


@pytest.mark.parametrize(
    "act",
    [
        lambda path: os.truncate(path, 1),
        lambda path: os.chmod(path, 0o755),
        lambda path: os.unlink(path),
        lambda path: os.rename(path, path.with_name("other")),
    ],
)
async def test_what_is_not_a_save_is_touched(watcher, tmp_path, act):
    books = tmp_path / "books.db"
    books.write_text("as they were")
    await watcher.watch(tmp_path, recursive=False, only={"books.db"})
    act(books)
    assert await heard(watcher, lambda total: books in total.touched) == Changes(touched=frozenset({books}))


async def test_neighbours_of_a_single_file_are_not_heard(watcher, tmp_path):
    await watcher.watch(tmp_path, recursive=False, only={"books.db", "marker"})
    (tmp_path / "letter.txt").write_text("nobody's business")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "books.db").write_text("another one")
    assert await nothing_before(watcher, tmp_path / "marker") == Changes()


async def test_two_wishes_for_one_folder_are_kept_apart(watcher, tmp_path):
    one = await watcher.watch(tmp_path, recursive=False, only={"one"})
    await watcher.watch(tmp_path, recursive=False, only={"two", "marker"})
    (tmp_path / "one").touch()
    (tmp_path / "two").touch()
    await heard(watcher, lambda total: {tmp_path / "one", tmp_path / "two"} <= total.closed)
    await watcher.unwatch(one)
    await watcher.unwatch(one)
    (tmp_path / "one").touch()
    assert await nothing_before(watcher, tmp_path / "marker") == Changes()


async def test_new_folders_are_watched_with_what_is_in_them(watcher, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    await watcher.watch(here, recursive=True)
    (there / "2026").mkdir(parents=True)
    (there / "2026" / "pay.db").write_text("moved in with its folder")
    os.rename(there, here / "client")
    pay = here / "client" / "2026" / "pay.db"
    # What is in it is not told one by one: whoever looks at the folder sees it, and what happens from then on is heard.
    assert await heard(watcher, lambda total: here / "client" in total.closed) == Changes(closed=frozenset({here / "client"}))
    pay.write_text("saved")
    assert pay in (await heard(watcher, lambda total: pay in total.closed)).closed


async def test_a_folder_behind_a_link_is_named_as_it_was_given(watcher, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    await watcher.watch(tmp_path / "link", recursive=True)
    (tmp_path / "real" / "books.db").write_text("saved")
    books = tmp_path / "link" / "books.db"
    assert await heard(watcher, lambda total: books in total.closed) == Changes(closed=frozenset({books}))


async def test_from_the_event_to_the_task_it_takes_milliseconds(watcher, tmp_path):
    await watcher.watch(tmp_path, recursive=True)
    times = []
    for n in range(20):
        path = tmp_path / f"file-{n}"
        began = time.perf_counter()
        path.write_text("saved")
        await heard(watcher, lambda total, path=path: path in total.closed)
        times.append(time.perf_counter() - began)
    assert sorted(times)[10] < 0.02


async def test_a_folder_that_is_not_there_is_watched_when_it_comes(watcher, tmp_path):
    stick = tmp_path / "stick"
    wish = await watcher.watch(stick, recursive=True)
    assert wish.fault == os.strerror(errno.ENOENT)
    stick.mkdir()
    assert (await heard(watcher, lambda total: total.doubt)).doubt == {stick}
    assert wish.fault is None
    (stick / "books.db").write_text("saved")
    await heard(watcher, lambda total: stick / "books.db" in total.closed)


async def test_watching_again_tries_at_once(watcher, tmp_path):
    stick = tmp_path / "stick"
    first = await watcher.watch(stick, recursive=True)
    stick.mkdir()
    assert (await watcher.watch(stick, recursive=True)).fault is None
    assert first.fault is None


@pytest.mark.parametrize("leave", [shutil.rmtree, lambda stick: os.rename(stick, stick.with_name("elsewhere"))])
async def test_a_root_that_leaves_is_doubted_and_heard_again_when_it_is_back(watcher, tmp_path, leave):
    stick = tmp_path / "stick"
    stick.mkdir()
    wish = await watcher.watch(stick, recursive=True)
    leave(stick)
    assert stick in (await heard(watcher, lambda total: total.doubt and wish.fault)).doubt
    stick.mkdir()
    await heard(watcher, lambda total: total.doubt and not wish.fault)
    (stick / "books.db").write_text("saved")
    await heard(watcher, lambda total: stick / "books.db" in total.closed)


async def test_a_root_with_another_folder_put_in_its_place_is_doubted(watcher, tmp_path):
    stick, other = tmp_path / "stick", tmp_path / "other"
    stick.mkdir()
    other.mkdir()
    await watcher.watch(stick, recursive=True)
    os.rename(stick, tmp_path / "old")
    os.rename(other, stick)
    await heard(watcher, lambda total: stick in total.doubt)
    (stick / "books.db").write_text("saved")
    await heard(watcher, lambda total: stick / "books.db" in total.closed)


@pytest.mark.parametrize("mode", ["a file", "forbidden"])
async def test_what_cannot_be_watched_says_why(watcher, tmp_path, mode, monkeypatch):
    place = tmp_path / "place"
    if mode == "a file":
        place.touch()
    else:
        place.mkdir()
        monkeypatch.setattr(os, "access", lambda *_: False)  # root may read everything
    assert (await watcher.watch(place, recursive=True)).fault in ("it is not a folder", "it may not be read")


@linux_only
async def test_an_overflow_of_the_kernel_s_queue_is_doubt_about_everything(watcher, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        await watcher.watch(folder, recursive=True)
    reader = watcher._observer._threads.reader
    (one / "a").touch()
    (one / "b").touch()
    await heard(watcher, lambda total: one / "b" in total.closed)
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())

    def flood():
        with reader._lock:  # the thread cannot read while the queue fills
            for n in range(limit + 6000):  # what it had begun to read does not count
                os.utime(one / ("a" if n % 2 else "b"))

    await trio.to_thread.run_sync(flood)
    with trio.fail_after(20):
        while {one, two} - (await watcher.changes()).doubt:
            pass
    (two / "books.db").write_text("saved")
    await heard(watcher, lambda total: two / "books.db" in total.closed)


async def test_more_changes_than_can_wait_are_doubt_about_everything(nursery, tmp_path, monkeypatch):
    monkeypatch.setattr(watcher_module, "_MOST_WAITING", 10)
    watcher = Watcher()
    await nursery.start(watcher.run)
    await watcher.watch(tmp_path, recursive=True)
    for n in range(50):
        (tmp_path / str(n)).touch()
    assert (await heard(watcher, lambda total: total.doubt)).doubt == {tmp_path}


@linux_only
@pytest.mark.parametrize("victim", ["emitter", "reader", "teller"])
async def test_a_thread_that_died_is_replaced(watcher, tmp_path, victim):
    await watcher.watch(tmp_path, recursive=True)
    threads = watcher._observer._threads
    thread = {"emitter": next(iter(threads.emitters)), "reader": threads.reader, "teller": threads}[victim]
    await trio.to_thread.run_sync(thread.stop)
    thread.join(5)
    assert not thread.is_alive()
    assert (await heard(watcher, lambda total: total.doubt)).doubt == {tmp_path}
    (tmp_path / "books.db").write_text("saved")
    await heard(watcher, lambda total: tmp_path / "books.db" in total.closed)


@linux_only
async def test_without_any_inotify_instance_the_status_says_so_and_it_is_tried_again(nursery, tmp_path, monkeypatch):
    monkeypatch.setattr(watcher_module, "_CHECK_S", 0.05)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    fds = len(os.listdir("/proc/self/fd"))
    watcher = Watcher()
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (fds - 1, hard))  # EMFILE, as with too many instances
        await nursery.start(watcher.run)
        wish = await watcher.watch(tmp_path, recursive=True)
        assert (await watcher.changes()).refused, "whoever relies on it is told"
        assert isinstance(watcher.problem, WatchLimit)
        assert "fs.inotify.max_user_instances=" in str(watcher.problem)
        assert wish.fault
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    await heard(watcher, lambda total: not wish.fault)
    (tmp_path / "books.db").write_text("saved")
    await heard(watcher, lambda total: tmp_path / "books.db" in total.closed)
    assert watcher.problem is None


LIMITED = """
import sys, trio
from pathlib import Path
from p2psync.edge import watcher as module
from p2psync.edge.watcher import Watcher
module._CHECK_S = 0.05
limit = Path("/proc/sys/user/max_inotify_watches")
limit.write_text("3")

async def main(folder):
    watcher = Watcher()
    async with trio.open_nursery() as nursery:
        await nursery.start(watcher.run)
        await watcher.watch(folder, recursive=True)
        await watcher.changes()
        print(watcher.problem, flush=True)
        limit.write_text("100")
        module._limit = lambda setting: 10**9
        with trio.fail_after(5):
            while folder not in (await watcher.changes()).doubt:
                pass
            (folder / "5" / "deep").write_text("heard again")
            while folder / "5" / "deep" not in (await watcher.changes()).closed:
                pass
        print(watcher.problem, flush=True)
        nursery.cancel_scope.cancel()

trio.run(main, Path(sys.argv[1]))
"""


@linux_only
def test_a_watch_limit_that_is_reached_below_a_root_is_a_problem_until_it_is_raised(tmp_path):
    for n in range(6):
        (tmp_path / str(n)).mkdir()
    own_limits = ["unshare", "--user", "--map-root-user"]
    if not shutil.which("unshare") or subprocess.run([*own_limits, "true"], capture_output=True).returncode:
        pytest.skip("needs a user namespace with limits of its own")
    done = subprocess.run([*own_limits, sys.executable, "-c", LIMITED, tmp_path], capture_output=True, text=True, timeout=30)
    first, last = done.stdout.splitlines() or ("", done.stderr)
    assert "Raise the limit: sudo sysctl fs.inotify.max_user_watches=" in first
    assert last == "None"


SHUT = """
import sys, trio
from pathlib import Path
from p2psync.edge import watcher as module
from p2psync.edge.watcher import Watcher
module._CHECK_S = 0.05

async def main(folder):
    watcher = Watcher()
    shut = folder / "shut"
    shut.mkdir()
    shut.chmod(0)
    (folder / "gone").mkdir(mode=0)
    async with trio.open_nursery() as nursery:
        await nursery.start(watcher.run)
        await watcher.watch(folder, recursive=True)
        (folder / "gone").rmdir()
        with trio.fail_after(5):
            shut.chmod(0o700)
            while folder not in (await watcher.changes()).doubt:
                pass
            (shut / "books.db").write_text("heard now")
            while shut / "books.db" not in (await watcher.changes()).closed:
                pass
        assert not watcher._observer._threads.reader.shut
        print("heard")
        nursery.cancel_scope.cancel()

trio.run(main, Path(sys.argv[1]))
"""


@linux_only
def test_a_folder_that_becomes_readable_is_heard_from_then_on(tmp_path):
    not_almighty = [] if os.geteuid() else ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    if not_almighty and not shutil.which("setpriv"):
        pytest.skip("root may read everything")
    done = subprocess.run([*not_almighty, sys.executable, "-c", SHUT, tmp_path], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("heard\n", "")


async def test_no_thread_and_no_descriptor_is_left_behind(tmp_path):
    def open_descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    async def once() -> None:
        async with trio.open_nursery() as nursery:
            watcher = Watcher()
            await nursery.start(watcher.run)
            for n in range(5):
                (tmp_path / str(n)).mkdir(exist_ok=True)
                await watcher.watch(tmp_path / str(n), recursive=True)
            nursery.cancel_scope.cancel()

    await once()
    before = threading.active_count(), open_descriptors()
    await once()
    assert (threading.active_count(), open_descriptors()) == before


async def test_a_stop_before_the_start_is_over_leaves_nothing_either(tmp_path):
    with trio.CancelScope() as scope:
        scope.cancel()
        await Watcher().run()


async def test_watching_before_the_start_waits_for_it(nursery, tmp_path):
    watcher = Watcher()
    wish = await watcher.watch(tmp_path, recursive=True)
    assert wish.fault
    await nursery.start(watcher.run)
    assert wish.fault is None
    assert (await watcher.changes()).doubt == {tmp_path}
