"""A save is on the disk itself before the ledger says that it is there."""

import errno
import os

import pytest

from p2psync.store import lasting, paths
from p2psync.store.lasting import make_lasting
from p2psync.store.root import Root
from p2psync.store.spots import Spot
from p2psync.values.names import RelPath
from tests.lan.desks import Desk, fast_place


@pytest.fixture
def order(monkeypatch):
    """What was made durable, and when the ledger was written, in their order."""
    seen: list[str] = []

    def noting(fd: int) -> None:
        seen.append(os.readlink(f"/proc/self/fd/{fd}").rpartition("/")[2])

    monkeypatch.setattr(lasting, "sync_file", noting)
    monkeypatch.setattr(lasting, "sync_folder", noting)
    put = paths.put_all

    def noted(db, views):
        views = list(views)
        seen.extend(f"ledger {view.path}" for view in views)
        put(db, views)

    monkeypatch.setattr(paths, "put_all", noted)
    return seen


@pytest.fixture
def anna():
    with fast_place() as place:
        desk = Desk(place / "anna", "Anna").found()
        (desk.files / "recus").mkdir(parents=True)
        (desk.files / "recus" / "a").write_text("one")
        desk.attach(desk.files / "recus")
        yield desk
        desk.arrivals.close()
        desk.books.close()


def test_a_save_is_made_to_last_before_it_is_written_down(anna, order):
    (anna.files / "recus" / "a").write_text("another")
    anna.settle()
    assert order.index("a") < order.index("recus") < order.index("ledger recus/a")


def test_so_are_the_new_folders_around_it(anna, order):
    (anna.files / "recus" / "sub" / "deep").mkdir(parents=True)
    (anna.files / "recus" / "sub" / "deep" / "b").write_text("two")
    anna.settle()
    assert max(order.index(name) for name in ("b", "deep", "sub", "recus")) < order.index("ledger recus/sub/deep/b")


def test_so_is_a_folder_that_took_the_place_of_another(anna, order):
    sub = anna.files / "recus" / "sub"
    sub.mkdir()
    (sub / "b").write_text("two")
    anna.settle()
    order.clear()
    sub.rename(anna.files / "old sub")
    sub.mkdir()
    (sub / "b").write_text("three")
    anna.look.look({Spot(RelPath("recus/sub/b"), ("sub", "b"))})
    assert max(order.index(name) for name in ("b", "sub", "recus")) < order.index("ledger recus/sub/b")


def test_a_deletion_lasts_before_it_is_recorded(anna, order):
    (anna.files / "recus" / "a").unlink()
    anna.settle()
    assert order[0] == "recus"


def test_nothing_is_synced_when_nothing_changed(anna, order):
    anna.settle()
    assert order == []


def test_what_cannot_be_made_to_last_is_not_recorded_yet(anna, monkeypatch):
    def failing(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as broken:
        broken.setattr(lasting, "sync_file", failing)
        (anna.files / "recus" / "a").write_text("another")
        worked = anna.settle()
        assert not worked.records
        assert worked.attention["recus/a"].code == "unreadable"
    assert anna.settle().records


def test_a_disk_that_promises_nothing_is_no_obstacle(anna, monkeypatch):
    def unknown(fd: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(lasting, "sync_file", unknown)
    monkeypatch.setattr(lasting, "sync_folder", unknown)
    (anna.files / "recus" / "a").write_text("another")
    assert anna.settle().records


def test_of_many_files_the_whole_disk_is_made_durable(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(lasting, "sync_disk", lambda fd: bool(synced.append("disk")) or True)
    monkeypatch.setattr(lasting, "sync_file", lambda fd: synced.append("file"))
    assert make_lasting(Root(tmp_path), [(f"{n}",) for n in range(lasting.MANY)], []) == {}
    assert synced == ["disk"]
