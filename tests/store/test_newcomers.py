"""Many new small files at once: what is plain goes the short way, what is not goes the long one, and both end alike."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2psync.store import apply, carryout, checking, copies, durable, newfolders, paths, scan, staging, versions
from p2psync.store.root import list_at
from p2psync.store.staging import staged_name
from p2psync.values.content import File
from p2psync.values.digest import content_digest
from p2psync.values.names import RelPath
from tests.lan.desks import Desk, exchange, tree, two_desks


@pytest.fixture
def desks(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Desk, Desk]]:
    with two_desks(monkeypatch) as (anna, marie):
        (anna.files / "recus").mkdir(parents=True)
        anna.attach(anna.files / "recus")
        exchange(anna, marie)
        yield anna, marie


def write_many(folder: Path, number: int = 300) -> dict[str, str]:
    chance, texts = random.Random(1), {}
    for one in range(number):
        path = folder / f"{one // 50}" / "deep" / f"{one}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        texts[str(path.relative_to(folder))] = chance.randbytes(chance.choice([0, 40, 4000])).hex()
        path.write_text(texts[str(path.relative_to(folder))])
    return texts


def stays_the_same(*desks: Desk) -> None:
    for desk in desks:
        assert not desk.settle(*[other for other in desks if other is not desk]).records


def test_many_new_files_arrive_as_they_were_saved(desks: tuple[Desk, Desk]) -> None:
    anna, marie = desks
    folder = anna.files / "recus"
    texts = write_many(folder)
    os.utime(folder / "0" / "deep" / "1.txt", ns=(10**18, 10**18 + 7))
    (folder / "2" / "deep" / "100.txt").chmod(0o755)
    exchange(anna, marie)
    there = marie.folder / "recus"
    assert tree(there) == texts
    assert (there / "0" / "deep" / "1.txt").stat().st_mtime_ns == 10**18 + 7
    assert (there / "2" / "deep" / "100.txt").stat().st_mode & 0o777 == 0o755
    assert (there / "2" / "deep" / "101.txt").stat().st_mode & 0o111 == 0
    assert not list(there.rglob(".p2psync*"))
    stays_the_same(anna, marie)


def test_they_take_the_short_way(desks: tuple[Desk, Desk], monkeypatch: pytest.MonkeyPatch) -> None:
    anna, marie = desks
    write_many(anna.files / "recus")
    anna.settle()

    def long_way(*_: object, **__: object) -> None:
        raise AssertionError("a plain new file went the long way")

    monkeypatch.setattr(apply.Applying, "_file", long_way)
    monkeypatch.setattr(staging.Staging, "__init__", long_way)
    marie.learn(anna)
    marie.settle(anna)
    assert tree(marie.folder / "recus") == tree(anna.files / "recus")


def test_whatever_is_not_plain_ends_as_it_always_does(desks: tuple[Desk, Desk]) -> None:
    anna, marie = desks
    folder, there = anna.files / "recus", marie.folder / "recus"
    texts = write_many(folder)
    content = content_digest(texts["0/deep/2.txt"].encode())
    marie.learn(anna)
    marie.settle(anna)  # the folders are not known yet
    anna.settle()
    (there / "1" / "deep").mkdir(parents=True)
    (there / "1" / "deep" / "60.txt").write_text("Marie's own")  # stands where one is to come
    (there / "1" / "deep" / "61.txt").write_text(texts["1/deep/61.txt"])  # the same bytes, made by herself
    (there / "0" / "deep").mkdir(parents=True)
    (there / "0" / "deep" / staged_name(content, "2.txt")).write_text("left by an earlier run, and not what it says")
    (there / "3").write_text("a file where a folder is to be")
    exchange(anna, marie, rounds=4)
    found = tree(there)
    assert found["0/deep/2.txt"] == texts["0/deep/2.txt"]
    assert found["1/deep/61.txt"] == texts["1/deep/61.txt"]
    assert {"Marie's own", texts["1/deep/60.txt"]} <= {found["1/deep/60.txt"], *found.values()}
    assert tree(folder) == found
    stays_the_same(anna, marie)


def test_a_name_that_some_disk_takes_for_another_waits(desks: tuple[Desk, Desk]) -> None:
    anna, marie = desks
    (anna.files / "recus" / "Bilan.txt").write_text("Anna's")
    (marie.folder / "recus" / "bilan.txt").write_text("Marie's")
    for desk in desks:
        desk.settle()
    exchange(anna, marie)
    for folder in (anna.files / "recus", marie.folder / "recus"):
        assert len([path for path in folder.iterdir() if path.name.lower() == "bilan.txt"]) == 1


def test_a_new_folder_tree_is_gone_through_once(desks: tuple[Desk, Desk], monkeypatch: pytest.MonkeyPatch) -> None:
    anna, _ = desks
    write_many(anna.files / "recus")
    listed: list[int] = []

    def listing(folder: int) -> object:
        listed.append(os.fstat(folder).st_ino)
        return list_at(folder)

    monkeypatch.setattr(scan, "list_at", listing)
    anna.settle()
    once = {path.stat().st_ino for path in (anna.files / "recus").rglob("*") if path.is_dir()}
    first = listed[: len(once) + 1]
    assert set(first) == once | {(anna.files / "recus").stat().st_ino}
    assert len(listed) <= 3 * len(first)  # the survey, the look at the attachment itself, and one survey that finds nothing


def test_the_disk_is_made_durable_for_all_of_them_at_once(desks: tuple[Desk, Desk], monkeypatch: pytest.MonkeyPatch) -> None:
    anna, marie = desks
    write_many(anna.files / "recus")
    anna.settle()
    calls = {"disk": 0, "file": 0}

    def sync_disk(fd: int) -> bool:
        calls["disk"] += 1
        return True

    def sync_file(fd: int) -> None:
        calls["file"] += 1

    monkeypatch.setattr(carryout, "sync_disk", sync_disk)
    monkeypatch.setattr(carryout, "sync_file", sync_file)
    marie.learn(anna)
    marie.settle(anna)
    assert len(tree(marie.folder / "recus")) == 300
    assert calls["file"] == 0 and 2 <= calls["disk"] <= 6


def test_what_is_asked_for_many_is_what_is_asked_for_each(desks: tuple[Desk, Desk]) -> None:
    anna, marie = desks
    folder = anna.files / "recus"
    write_many(folder, 60)
    exchange(anna, marie)
    for desk, place in ((anna, folder), (marie, marie.folder / "recus")):
        (place / "0" / "deep" / "3.txt").write_text(f"by {desk.person}")
        desk.settle()
    exchange(anna, marie)
    (folder / "0" / "deep" / "4.txt").unlink()
    exchange(anna, marie)
    db = anna.books.ledger.read()
    asked = [RelPath(f"recus/0/deep/{number}.txt") for number in range(70)] + [RelPath("recus"), RelPath("recus/0")]
    assert copies.some(db) and len(versions.heads(db, asked[3]).all) == 2
    assert versions.heads_of(db, asked) == {path: versions.heads(db, path) for path in asked}
    assert paths.get_all(db, asked) == {path: view for path in asked if (view := paths.get(db, path)) is not None}
    assert versions.with_namesakes(db, asked) == {path for path in asked if versions.namesake(db, path) is not None}
    seen = {"/".join(view.disk): view.observed for view in paths.below(db, RelPath("recus")) if view.observed is not None}
    stamps = dict(paths.stamps_below(db, RelPath("recus")))
    assert stamps.keys() == seen.keys()
    assert all(stamp is None or stamp == seen[disk].stamp for disk, stamp in stamps.items())
    digests = [head.state.content.digest for path in asked for head in versions.heads(db, path).all if isinstance(head.state, File)]
    held = {digest: anna.books.vault.get(digest) for digest in digests}
    assert anna.books.vault.get_all(digests) == {digest: data for digest, data in held.items() if data is not None}
    assert anna.sources.elsewhere(digests) == {digest for digest in digests if next(anna.sources._from_files(digest), None) is not None}


def test_that_nothing_is_damaged_is_known_without_going_through_everything(desks: tuple[Desk, Desk]) -> None:
    anna, _ = desks
    write_many(anna.files / "recus")
    anna.settle()
    steps = list[int]()
    anna.books.ledger.read().set_progress_handler(lambda: steps.append(1), 100)
    assert checking.damaged(anna.books) == set() and not steps
    assert paths.count_files(anna.books.ledger.read(), RelPath("recus")) == 300 and steps


def test_new_folders_are_made_durable_together(desks: tuple[Desk, Desk], monkeypatch: pytest.MonkeyPatch) -> None:
    anna, marie = desks
    write_many(anna.files / "recus", 500)  # in ten folders, with one in each
    anna.settle()
    synced: list[str] = []
    real = durable.sync_folder

    def sync_folder(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        real(fd)

    monkeypatch.setattr(newfolders, "sync_disk", lambda fd: False)
    monkeypatch.setattr(newfolders, "sync_folder", sync_folder)
    marie.learn(anna)
    marie.settle(anna)
    there = str(marie.folder / "recus")
    assert sorted(synced) == sorted([there, *(f"{there}/{number}" for number in range(10))])


def test_folders_that_the_disk_does_not_take_are_not_noted(desks: tuple[Desk, Desk], monkeypatch: pytest.MonkeyPatch) -> None:
    anna, marie = desks
    texts = write_many(anna.files / "recus")
    anna.settle()

    def failing(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as failing_disk:
        failing_disk.setattr(newfolders, "sync_disk", lambda fd: False)
        failing_disk.setattr(newfolders, "sync_folder", failing)
        marie.learn(anna)
        worked = marie.settle(anna)
        folder = worked.attention["recus/0/deep"]
        assert folder is not None and folder.code == "unwritable"
        assert not list((marie.folder / "recus").iterdir())
        assert paths.folders_below(marie.books.ledger.read(), RelPath("recus")) == []
    exchange(anna, marie)
    assert tree(marie.folder / "recus") == texts
