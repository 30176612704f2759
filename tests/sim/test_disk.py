"""The modelled disk itself: what a power cut may leave, faults at a chosen step, traits; and that careless programs are caught by it."""

import errno
import itertools
import os
import random
import shutil
import sqlite3
import tempfile
from contextlib import suppress
from functools import partial

import pytest

from p2psync.store import openfiles, savefile
from p2psync.store.durable import sync_file, sync_folder
from p2psync.store.faults import DiskFailing, DiskFull
from p2psync.store.ledger import Ledger
from p2psync.store.openfiles import Lease
from p2psync.store.renaming import rename_new, swap
from p2psync.store.root import Root, RootGone
from p2psync.store.vault import Vault
from p2psync.values.digest import content_digest
from tests.lan.desks import fast_place
from tests.sim import disk as model
from tests.sim.disk import Disk, Killed, Traits, interposed

TRIES = 120
SEEDS = 8
GONE = "gone"


@pytest.fixture
def place():
    with fast_place() as found:
        yield found


def outcomes(place, act, tries=TRIES, root="disk"):
    """Everything that may stand on the disk when the power fails after ``act``."""
    found = set()
    for seed in range(tries):
        top = place / f"{root}{seed}"
        top.mkdir()
        disk = Disk(top, random.Random(seed))
        with interposed([disk]):
            with disk.program():
                (top / "old").write_bytes(b"old")
                (top / "dir").mkdir()
            disk.settle()
            act(top)
            disk.crash()
            with disk.looking():
                found.add(tuple(sorted(tree(top).items())))
        shutil.rmtree(top)
    return [dict(one) for one in found]


def tree(top):
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def values(found, name):
    return {one.get(name, GONE) for one in found}


def sync(path):
    fd = os.open(path, os.O_RDONLY)
    (sync_folder if path.is_dir() else sync_file)(fd)
    os.close(fd)


# ---- what a power cut leaves


def test_what_was_not_synced_may_be_there_or_not(place):
    found = outcomes(place, lambda top: (top / "new").write_bytes(b"new"))
    assert values(found, "new") >= {GONE, b"", b"new"}
    assert values(found, "old") == {b"old"}


def test_a_file_that_was_synced_may_lack_its_name(place):
    def act(top):
        (top / "new").write_bytes(b"new")
        sync(top / "new")

    assert values(outcomes(place, act), "new") == {GONE, b"new"}


def test_a_name_that_was_synced_may_lack_its_bytes(place):
    def act(top):
        (top / "new").write_bytes(b"new")
        sync(top)

    found = values(outcomes(place, act), "new")
    assert found >= {b"", b"new"} and GONE not in found


def test_what_was_synced_stays(place):
    def act(top):
        (top / "new").write_bytes(b"new")
        sync(top / "new")
        sync(top)

    assert outcomes(place, act) == [{"new": b"new", "old": b"old"}]


def test_bytes_written_into_a_file_may_be_torn(place):
    old, new = b"o" * 10000, b"n" * 12000

    def act(top):
        (top / "torn").write_bytes(old)
        sync(top / "torn")
        sync(top)
        with open(top / "torn", "r+b") as file:
            file.write(new)

    found = values(outcomes(place, act), "torn")
    assert {old, new} <= found and GONE not in found
    assert {set(one) == set(b"on") for one in found} == {True, False}  # pages of both in one file
    assert any(one.endswith(b"\0") for one in found)
    assert all(page in (b"o", b"n", b"\0", b"o\0") for one in found for page in {bytes(sorted(set(one[:10000][:4096])))[::-1]})


def test_a_rename_is_there_or_not_and_never_half(place):
    found = outcomes(place, lambda top: os.rename(top / "old", top / "new"))
    assert {tuple(one.items()) for one in found} == {(("old", b"old"),), (("new", b"old"),)}


def test_a_rename_stays_when_its_folder_was_synced(place):
    def act(top):
        os.rename(top / "old", top / "new")
        sync(top)

    assert outcomes(place, act) == [{"new": b"old"}]


def test_the_two_folders_of_a_rename_are_independent(place):
    def act(top):
        os.rename(top / "old", top / "dir/new")

    assert {tuple(sorted(one)) for one in outcomes(place, act)} == {(), ("old",), ("dir/new",), ("dir/new", "old")}

    def careful(top):
        act(top)
        sync(top / "dir")

    assert {tuple(sorted(one)) for one in outcomes(place, careful, root="careful")} == {("dir/new",), ("dir/new", "old")}


def test_a_file_with_both_names_of_its_rename_is_two_files(place):
    """A save through one name must not change the other: what holds there was then never saved under it (seed 1001616)."""
    found = 0
    for seed in range(TRIES):
        top = place / f"disk{seed}"
        top.mkdir()
        disk = Disk(top, random.Random(seed))
        with interposed([disk]), disk.program():
            (top / "old").write_bytes(b"old")
            (top / "dir").mkdir()
            disk.settle()
            os.rename(top / "old", top / "dir/new")
            disk.crash()
            if len(tree(top)) == 2:
                (top / "old").write_bytes(b"later")
                assert tree(top) == {"old": b"later", "dir/new": b"old"} and not (top / "old").samefile(top / "dir/new")
                found += 1
    assert found


def test_a_folder_that_moves_is_in_one_place(place):
    def act(top):
        (top / "dir/below").write_bytes(b"below")
        sync(top / "dir/below")
        sync(top / "dir")
        (top / "other").mkdir()
        sync(top)
        os.rename(top / "dir", top / "other/dir")

    assert {tuple(sorted(one)) for one in outcomes(place, act)} == {("dir/below", "old"), ("old", "other/dir/below")}


def test_what_was_renamed_over_may_come_back(place):
    def act(top):
        (top / "new").write_bytes(b"new")
        sync(top / "new")
        os.replace(top / "new", top / "old")

    found = outcomes(place, act)
    assert {tuple(sorted(one.items())) for one in found} == {
        (("old", b"old"),), (("new", b"new"), ("old", b"old")), (("old", b"new"),),
    }  # fmt: skip


def test_a_swap_is_there_or_not(place):
    def act(top):
        (top / "new").write_bytes(b"new")
        sync(top / "new")
        sync(top)
        fd = os.open(top, os.O_RDONLY)
        assert swap(fd, "new", fd, "old")
        os.close(fd)

    assert {(one["old"], one["new"]) for one in outcomes(place, act)} == {(b"old", b"new"), (b"new", b"old")}


def test_what_was_removed_may_come_back(place):
    def act(top):
        (top / "old").unlink()
        (top / "dir").rmdir()

    assert values(outcomes(place, act), "old") == {GONE, b"old"}

    def careful(top):
        act(top)
        sync(top)

    assert outcomes(place, careful, root="careful") == [{}]


def test_what_is_in_a_folder_whose_name_is_not_durable_may_go_with_it(place):
    def act(top):
        (top / "made").mkdir()
        (top / "made/file").write_bytes(b"in it")
        sync(top / "made/file")
        sync(top / "made")

    assert values(outcomes(place, act), "made/file") == {GONE, b"in it"}


def test_permissions_and_times_are_durable_with_the_file(place):
    def modes(careful):
        found = set()
        for seed in range(40):
            top = place / f"{careful} {seed}"
            top.mkdir()
            disk = Disk(top, random.Random(seed))
            with interposed([disk]):
                (top / "a").touch(0o600)
                sync(top / "a")
                sync(top)
                (top / "a").chmod(0o755)
                os.utime(top / "a", ns=(5, 5))
                if careful:
                    sync(top / "a")
                disk.crash()
                status = (top / "a").stat()
                found.add((status.st_mode & 0o777, status.st_mtime_ns == 5))
        return found

    assert {(0o600, False), (0o755, True)} <= modes(careful=False)
    assert modes(careful=True) == {(0o755, True)}


def test_after_a_sync_that_failed_another_one_proves_nothing(place):
    found = set()
    for seed in range(20):
        top = place / str(seed)
        top.mkdir()
        disk = Disk(top, random.Random(seed))
        with interposed([disk]):
            (top / "a").write_bytes(b"a")
            sync(top)
            disk.fail(errno.EIO, at=0, only="fsync")
            with pytest.raises(OSError):
                sync(top / "a")
            sync(top / "a")
            disk.crash()
            found.add((top / "a").read_bytes())
    assert {b"", b"a"} <= found


def test_the_system_writes_by_itself_after_a_while(place):
    for seed in range(20):
        top = place / str(seed)
        top.mkdir()
        disk = Disk(top, random.Random(seed))
        now = [0.0]
        disk.seconds = partial(now.__getitem__, 0)
        with interposed([disk]):
            (top / "a").write_bytes(b"a")
            now[0] += model.WRITEBACK_S + 1
            (top / "b").write_bytes(b"b")
            disk.crash()
            assert (top / "a").read_bytes() == b"a"


# ---- careful and careless programs


def careless(data, *, content=True, folder=True, late=False):
    def save(path):
        fd, name = tempfile.mkstemp(dir=path.parent)
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            if content and not late:
                sync_file(fd)
            if late:
                os.replace(name, path)
                sync_file(fd)
        if not late:
            os.replace(name, path)
        if folder:
            sync(path.parent)

    return save


def faults_of(place, save):
    """What goes wrong with a way of saving, at any step and in any order that the disk may choose."""
    found = set()
    for seed in range(SEEDS):
        step = 0
        while True:
            top = place / f"{seed} {step}"
            top.mkdir()
            disk = Disk(top, random.Random(f"{seed} {step}"))
            with interposed([disk]):
                savefile.save(top / "file", b"old" * 3000)
                disk.kill_at(step // 2, after=bool(step % 2))
                finished = False
                with suppress(Killed):
                    save(top / "file")
                    finished = True
                disk.crash()
                with disk.looking():
                    now = (top / "file").read_bytes() if (top / "file").exists() else None
                if now not in (b"old" * 3000, b"new" * 4000):
                    found.add("torn")
                if finished and now != b"new" * 4000:
                    found.add("not durable")
            shutil.rmtree(top)
            if finished:
                break
            step += 1
    return found


def test_savefile_is_old_or_new_at_every_step(place):
    assert faults_of(place, lambda path: savefile.save(path, b"new" * 4000)) == set()


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({}, set()),
        ({"content": False}, {"torn", "not durable"}),
        ({"folder": False}, {"not durable"}),
        ({"late": True}, {"torn"}),
    ],
)
def test_careless_saves_are_caught(place, how, expected):
    assert faults_of(place, careless(b"new" * 4000, **how)) == expected


def test_a_ledger_that_says_more_than_the_disk_holds_is_caught(place):
    def lies(act):
        found = set()
        for seed in range(20):
            top = place / f"{act.__name__} {seed}"
            top.mkdir()
            disk = Disk(top, random.Random(seed))
            with interposed([disk]):
                ledger = Ledger(top / "ledger")
                act(top, ledger)
                ledger.close()
                disk.crash()
                again = Ledger(top / "ledger")
                found.add(again.get("done") == b"1" and not (top / "name").exists())
                again.close()
        return found

    def recorded_first(top, ledger):
        (top / "staged").write_bytes(b"whole")
        sync(top / "staged")
        os.rename(top / "staged", top / "name")
        ledger.put("done", b"1")
        sync(top)

    def killed_between(top, ledger):
        ledger._writer._place.disk.kill_at(4, after=True)
        with pytest.raises(Killed):
            recorded_first(top, ledger)

    def synced_first(top, ledger):
        (top / "staged").write_bytes(b"whole")
        sync(top / "staged")
        os.rename(top / "staged", top / "name")
        sync(top)
        ledger.put("done", b"1")

    assert lies(killed_between) == {True, False}
    assert lies(synced_first) == {False}


# ---- databases


def test_a_commit_is_a_step_and_what_was_committed_survives(place):
    disk = Disk(place, random.Random(1))
    with interposed([disk]):
        ledger = Ledger(place / "ledger")
        ledger.put("a", b"1")
        for after in (False, True):
            disk.kill_at(0, after=after)
            with pytest.raises(Killed):
                ledger.put("b" if after else "c", b"2")
            disk.crash()
            ledger = Ledger(place / "ledger")
        assert [ledger.get(key) for key in "abc"] == [b"1", b"2", None]
        ledger.close()


def test_a_database_without_full_synchronous_is_refused(place):
    disk = Disk(place, random.Random(1))
    with interposed([disk]):
        db = sqlite3.connect(place / "db", isolation_level=None)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        with pytest.raises(AssertionError, match="a commit that a power cut may undo"):
            db.execute("CREATE TABLE t (a)")
        db.close()


def test_ledger_and_vault_say_so_when_the_disk_is_full_or_fails(place):
    disk = Disk(place, random.Random(1))
    with interposed([disk]):
        ledger, vault = Ledger(place / "ledger"), Vault(place / "vault")
        disk.full(True)
        with pytest.raises(DiskFull):
            ledger.put("a", b"1")
        with pytest.raises(DiskFull):
            vault.keep([(content_digest(b"chunk"), b"chunk")])
        assert Root(place).space()[0] == disk.free() == 0 == shutil.disk_usage(place).free
        disk.full(False)
        disk.fail(errno.EIO, at=0, only="commit")
        with pytest.raises(DiskFailing):
            ledger.put("a", b"1")
        ledger.put("a", b"1")
        assert ledger.get("a") == b"1"
        ledger.close()
        vault.close()


# ---- steps, faults, the end of a process


def test_steps_are_counted_told_and_fail(place):
    disk = Disk(place, random.Random(1))
    told = []
    disk.on_step = lambda kind, path: told.append((kind, path))
    with interposed([disk]):
        savefile.save(place / "a", b"a")
        assert [kind for kind, _ in told] == ["create", "write", "chmod", "fsync", "rename", "fsync"] and disk.steps == 6
        assert told[-1] == ("fsync", "")
        disk.fail(errno.EACCES, at=1, count=2, only="open")
        assert (place / "a").read_bytes() == b"a"
        for _ in range(2):
            with pytest.raises(PermissionError):
                (place / "a").read_bytes()
        assert (place / "a").read_bytes() == b"a"
        disk.full(True)
        with pytest.raises(DiskFull):
            savefile.save(place / "b", b"b")
        assert os.listdir(place) == ["a"] and (place / "a").read_bytes() == b"a"
        disk.heal()
        with disk.program():
            (place / "b").write_bytes(b"b")
        assert disk.steps == len(told) + 1  # the one that found no room was not told


def test_the_dead_do_nothing_and_a_new_life_begins(place):
    disk = Disk(place, random.Random(1))
    with interposed([disk]):
        fd = os.open(place / "a", os.O_RDWR | os.O_CREAT)
        ledger = Ledger(place / "ledger")
        disk.kill_at(0)
        with pytest.raises(Killed):
            os.pwrite(fd, b"a", 0)
        for act in (lambda: os.unlink(place / "a"), lambda: os.pread(fd, 1, 0), lambda: ledger.put("a", b"1")):
            with pytest.raises(Killed):
                act()
        disk.lose_process()
        with pytest.raises(Killed):
            os.pwrite(fd, b"a", 0)
        os.close(fd)
        assert (place / "a").read_bytes() == b""
        Ledger(place / "ledger").close()


def test_locks_end_with_the_process(place):
    from p2psync.store.lock import HomeLock

    disk = Disk(place, random.Random(1))
    with interposed([disk]):
        HomeLock(place)
        disk.lose_process()
        with HomeLock(place):
            disk.crash()
        HomeLock(place).release()


def test_what_was_open_before_the_power_cut_does_not_touch_what_is_left(place):
    disk = Disk(place, random.Random(1))
    with interposed([disk]):
        file = open(place / "a", "wb")  # noqa: SIM115 - nobody closes it in time
        sync(place)
        disk.crash()
        with pytest.raises(Killed):
            file.write(b"from beyond"), file.flush()
        with suppress(Killed):
            file.close()
        assert (place / "a").read_bytes() == b""


def test_what_people_see_follows_each_write(place):
    disk = Disk(place, random.Random(1), Traits(nfd=True))
    with interposed([disk]):
        (place / "state").mkdir()
        (place / "é").write_text("one")
        assert disk.tree(str(place), "top") == {"top": None, "top/state": None, "top/é": b"one"}
        for text in ("two", "six"):
            (place / "é").write_text(text)
            assert disk.tree(str(place / "e\u0301"), "e") == {"e": text.encode()}
        before = disk.changes
        (place / "state/a").touch()
        assert disk.changes == before
        (place / "a").touch()
        assert disk.changes > before and disk.tree(str(place / "none"), "none") == {}


# ---- the same again


def test_the_same_chance_gives_the_same_run(place):
    def run(name):
        top = place / name
        top.mkdir()
        disk = Disk(top, random.Random(7))
        disk.now_ns = partial(next, itertools.count(10**18, 10**6))
        seen: list[object] = []
        with interposed([disk]):
            for turn in range(30):
                (top / f"d{turn % 3}").mkdir(exist_ok=True)
                (top / f"d{turn % 3}/{turn}").write_bytes(b"%d" % turn * 5000)
                if turn % 7 == 3:
                    sync(top / f"d{turn % 3}")
                if turn % 10 == 9:
                    disk.crash()
                for entry in os.scandir(top):
                    seen += [(entry.name, entry.inode(), entry.stat().st_mtime_ns, os.listdir(entry))]
                seen += [tree(top), tuple(os.stat(top))]
        return seen

    assert run("one") == run("two")


def test_nothing_else_is_touched_and_all_is_undone(place):
    inside, outside = place / "inside", place / "inside too"
    inside.mkdir(), outside.mkdir()
    names = [*model.CALLS, "replace", "remove"]
    before = [getattr(os, name) for name in names], open, sqlite3.connect
    disk = Disk(inside, random.Random(1))
    with interposed([disk]):
        (outside / "a").write_text("a")
        os.rename(outside / "a", outside / "b")
        assert not disk.steps and os.stat(outside / "b").st_ino == os.lstat(f"{outside}/../inside too/b").st_ino
        (inside / "c").write_text("c")
        disk.crash()
    assert ([getattr(os, name) for name in names], open, sqlite3.connect) == before
    assert sorted(os.listdir(place)) == ["inside", "inside too"] and os.listdir(outside) == ["b"]


def test_no_descriptor_of_the_dead_is_left(place):
    before = set(os.listdir("/proc/self/fd"))
    disk = Disk(place, random.Random(1))
    with interposed([disk]):
        os.open(place / "a", os.O_RDWR | os.O_CREAT)
        disk.opened(place / "a", "gestion")
        disk.crash()
    assert set(os.listdir("/proc/self/fd")) == before


# ---- traits


def test_coarse_times(place):
    disk = Disk(place, random.Random(1), Traits(coarse_s=2.0))
    disk.now_ns = lambda: 1_700_000_001_234_567_890
    with interposed([disk]):
        (place / "a").touch()
        fd = os.open(place / "a", os.O_RDONLY)
        found = {status.st_mtime_ns for status in (os.stat(place / "a"), os.fstat(fd), *(one.stat() for one in os.scandir(place)))}
        os.close(fd)
        assert found == {1_700_000_000_000_000_000}


def test_names_of_either_case_are_one(place):
    disk = Disk(place, random.Random(1), Traits(casefold=True))
    with interposed([disk]):
        (place / "Reçu.PDF").write_text("one")
        assert (place / "rEÇU.pdf").read_text() == "one"
        (place / "reçu.pdf").write_text("two")
        assert os.listdir(place) == ["Reçu.PDF"]
        with pytest.raises(FileExistsError):
            os.mkdir(place / "REÇU.pdf")
        os.rename(place / "Reçu.PDF", place / "reçu.pdf")
        assert os.listdir(place) == ["reçu.pdf"] and (place / "REÇU.PDF").read_text() == "two"
        fd = os.open(place, os.O_RDONLY)
        (place / "other").write_text("other")
        with pytest.raises(FileExistsError):
            rename_new(fd, "other", fd, "REÇU.PDF")
        assert os.stat("RECU.pdf".replace("C", "Ç"), dir_fd=fd).st_size == 3
        os.close(fd)


def test_names_are_kept_decomposed(place):
    disk = Disk(place, random.Random(1), Traits(nfd=True))
    with interposed([disk]):
        (place / "é").write_text("one")
        assert os.listdir(place) == ["e\u0301"]
        assert (place / "é").read_text() == (place / "e\u0301").read_text() == "one"
        (place / "ü").mkdir()
        (place / "ü" / "ö").write_text("in it")
        assert [path.name for path in Root(place).path.rglob("*")] == ["e\u0301", "u\u0308", "o\u0308"]


def test_disks_that_cannot_do_it(place):
    disk = Disk(place, random.Random(1), Traits(no_swap=True, no_noreplace=True, no_lease=True, no_exec=True))
    with interposed([disk]):
        (place / "a").write_text("a")
        (place / "b").write_text("b")
        fd = os.open(place, os.O_RDONLY)
        assert not swap(fd, "a", fd, "b")
        with pytest.raises(FileExistsError):
            rename_new(fd, "a", fd, "b")
        rename_new(fd, "a", fd, "c")
        assert os.listdir(place) == ["b", "c"]
        file = os.open(place / "b", os.O_RDONLY)
        with openfiles.held(file) as lease:
            assert lease is Lease.UNKNOWN
        os.fchmod(file, 0o600)
        assert os.fstat(file).st_mode & 0o777 == 0o700
        os.close(file), os.close(fd)


# ---- people's programs, mounts, backups


def test_what_a_program_has_open(place):
    disk = Disk(place, random.Random(1))
    root = Root(place)
    with interposed([disk]):
        root = Root(place)
        (place / "a").write_text("a")
        assert openfiles.is_open(root, ("a",)) is None
        disk.opened(place / "a", "gestion")
        by = openfiles.is_open(root, ("a",))
        assert by is not None and by.who is not None and by.who.startswith("gestion (process 7000 of ")
        disk.closed(place / "a")
        assert openfiles.is_open(root, ("a",)) is None
        fd = os.open(place / "a", os.O_RDONLY)
        by = openfiles.is_open(root, ("a",))
        assert by is None, "only we ourselves have it open, and everybody else could be seen"
        with disk.program():
            other = os.open(place / "a", os.O_RDONLY)
        with openfiles.held(fd) as lease:
            assert lease is Lease.REFUSED
        os.close(fd), os.close(other)


def test_a_disk_that_goes_and_comes_back(place):
    disk = Disk(place, random.Random(1))
    with interposed([disk]):
        folder = place / "stick"
        folder.mkdir()
        (folder / "a").write_text("a")
        root = Root(folder)
        fd = os.open(folder / "a", os.O_RDONLY)
        disk.unmount(folder)
        with pytest.raises(RootGone):
            root.list(())
        assert os.listdir(folder) == [] and os.stat(folder).st_dev != os.stat(place).st_dev
        with pytest.raises(OSError, match="Input/output error"):
            os.pread(fd, 1, 0)
        (folder / "by mistake").write_text("in the mount point")
        disk.crash()
        disk.mount(folder)
        assert [name for name, _ in root.list(())] == ["a"] and os.stat(folder).st_dev == os.stat(place).st_dev
    assert not list(place.parent.glob(f"{place.name}.*"))


def test_backups(place):
    disk = Disk(place, random.Random(1))
    with interposed([disk]):
        for name in ("state", "files"):
            (place / name).mkdir()
            (place / name / "a").write_text("old")
            os.utime(place / name / "a", ns=(7, 7))
        backup = disk.copy()
        number = os.stat(place / "files/a").st_ino
        for name in ("state", "files"):
            (place / name / "a").write_text("new")
            (place / name / "b").write_text("new")
        disk.restore(backup, only="files")
        assert tree(place) == {"state/a": b"new", "state/b": b"new", "files/a": b"old"}
        status = os.stat(place / "files/a")
        assert status.st_mtime_ns == 7 and status.st_ino != number
        disk.restore(backup)
        disk.crash()
        assert tree(place) == {"state/a": b"old", "files/a": b"old"}
