"""A version on its way in survives every crash, and nothing gets into it that its digests do not vouch for."""

from __future__ import annotations

import errno
import os
import random
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from p2psync.store.chunking import describe
from p2psync.store.faults import CannotWrite, DiskFailing, DiskFull
from p2psync.store.root import Root
from p2psync.store.staging import Sealed, StagedTwice, Staging, WrongChunk, WrongWhole, staged_name, sweep
from p2psync.values.content import CHUNK_MAX, Chunk, Content, Listing
from p2psync.values.digest import content_digest

from .conftest import Holder, read_only

pytestmark = pytest.mark.usefixtures("no_leaked_descriptors")


class Version:
    """A content with its bytes, as another machine would have it."""

    def __init__(self, data: bytes, place: Path) -> None:
        self.data = data
        self.path = place
        place.write_bytes(data)
        with place.open("rb") as file:
            self.content, self.listing = describe(file.fileno(), len(data))
        self.chunks = list(self.listing)

    def chunk(self, index: int) -> bytes:
        chunk = self.chunks[index]
        return self.data[chunk.offset : chunk.offset + chunk.size]


@pytest.fixture
def root(tmp_path: Path) -> Root:
    (tmp_path / "books" / "2026").mkdir(parents=True)
    return Root(tmp_path / "books")


@pytest.fixture
def version(tmp_path: Path) -> Version:
    return Version(random.Random(1).randbytes(1_500_000), tmp_path / "theirs")


def staging(root: Root, version: Version, name: str = "book.cre") -> Staging:
    return Staging(root, ("2026",), version.content, version.listing, name=name)


def staged(root: Root, version: Version, name: str = "book.cre") -> Path:
    return root.path / "2026" / staged_name(version.content.digest, name)


def filled(root: Root, version: Version) -> Sealed:
    with staging(root, version) as open_staging:
        for index in open_staging.missing():
            open_staging.put(index, version.chunk(index))
        return open_staging.seal(executable=False)


def test_chunks_in_any_order_make_the_version(root: Root, version: Version) -> None:
    order = list(range(len(version.chunks)))
    random.Random(2).shuffle(order)
    with staging(root, version) as open_staging:
        assert open_staging.missing() == sorted(order)
        for index in order:
            assert not open_staging.complete()
            open_staging.put(index, version.chunk(index))
        assert open_staging.have() == len(version.data)
        sealed = open_staging.seal(executable=True)
    assert staged(root, version).read_bytes() == version.data
    assert stat.S_IMODE(staged(root, version).stat().st_mode) == 0o600
    assert (sealed.content, sealed.executable) == (version.content, True)


def test_nothing_is_allocated_in_advance(root: Root, version: Version) -> None:
    with staging(root, version) as open_staging:
        assert staged(root, version).stat().st_blocks == 0
        open_staging.put(5, version.chunk(5))
        assert staged(root, version).stat().st_blocks * 512 < 2 * CHUNK_MAX


def test_what_is_not_the_chunk_is_refused(root: Root, version: Version) -> None:
    with staging(root, version) as open_staging:
        for data in (b"", version.chunk(1), version.chunk(0)[:-1], version.chunk(0) + b"x"):
            with pytest.raises(WrongChunk):
                open_staging.put(0, data)
            assert open_staging.place([(content_digest(b"not of this file"), b"not of this file")]) == 0
        assert open_staging.missing() == list(range(len(version.chunks)))
        assert staged(root, version).stat().st_blocks == 0


def test_sealing_what_is_not_whole_is_a_bug(root: Root, version: Version) -> None:
    with staging(root, version) as open_staging, pytest.raises(ValueError, match="missing"):
        open_staging.seal(executable=False)


def test_a_chunk_goes_to_all_its_places(root: Root, tmp_path: Path) -> None:
    piece = random.Random(3).randbytes(CHUNK_MAX)
    version = Version(piece * 4, tmp_path / "repeated")
    distinct = {chunk.digest for chunk in version.chunks}
    with staging(root, version) as open_staging:
        places = [open_staging.place([(chunk.digest, version.chunk(index))]) for index, chunk in enumerate(version.chunks)]
        assert sum(places) == len(version.chunks)
        assert sum(1 for place in places if place) == len(distinct) < len(version.chunks)
        open_staging.seal(executable=False)


def test_pieces_that_follow_each_other_are_written_at_once(root: Root, version: Version, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = [(chunk.digest, version.chunk(index)) for index, chunk in enumerate(version.chunks)]
    written: list[int] = []
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: (written.append(offset), pwrite(fd, data, offset))[1])
    with staging(root, version) as open_staging:
        open_staging.place([*pieces[4:], pieces[2], pieces[1], pieces[2]])
        assert written == [version.chunks[1].offset, version.chunks[4].offset]
        assert open_staging.missing() == [0, 3]
        open_staging.place([pieces[3], pieces[0], pieces[5]])
        open_staging.seal(executable=False)
    assert staged(root, version).read_bytes() == version.data


def test_killed_in_the_middle_only_the_rest_is_asked_for(root: Root, version: Version, forked: Callable[..., Any]) -> None:
    torn, good = 3, [0, 1, 5, 6]

    def fetch_and_die() -> None:
        open_staging = staging(root, version)
        for index in [*good, torn]:
            open_staging.put(index, version.chunk(index))
        # The power went while chunk 3 was written: half of it is there.
        fd = os.open(staged(root, version), os.O_WRONLY)
        os.pwrite(fd, bytes(version.chunks[torn].size // 2), version.chunks[torn].offset)
        os.kill(os.getpid(), 9)

    with pytest.raises(ChildProcessError, match="SIGKILL"):
        forked(fetch_and_die)
    with staging(root, version) as open_staging:
        assert open_staging.missing() == [index for index in range(len(version.chunks)) if index not in good]
        assert open_staging.have() == sum(version.chunks[index].size for index in good)
        for index in open_staging.missing():
            open_staging.put(index, version.chunk(index))
        open_staging.seal(executable=False)
    assert staged(root, version).read_bytes() == version.data


def test_holes_are_not_read(root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = Version(random.Random(4).randbytes(8_000_000), tmp_path / "large")
    with staging(root, version) as open_staging:
        open_staging.put(40, version.chunk(40))
    read: list[int] = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, offset: (read.append(size), pread(fd, size, offset))[1])
    with staging(root, version) as open_staging:
        assert len(version.chunks) - len(open_staging.missing()) == 1
    assert sum(read) < 4 * CHUNK_MAX


def test_a_stretch_of_zeros_need_not_travel(root: Root, tmp_path: Path) -> None:
    head = random.Random(5).randbytes(100_000)
    version = Version(head + bytes(10 * CHUNK_MAX), tmp_path / "sparse")
    with staging(root, version) as open_staging:
        for index in open_staging.missing():
            assert version.chunks[index].offset <= len(head)
            open_staging.put(index, version.chunk(index))
        open_staging.seal(executable=False)
    assert staged(root, version).read_bytes() == version.data
    assert staged(root, version).stat().st_blocks * 512 < 3 * CHUNK_MAX


def test_an_empty_file_is_whole_at_once(root: Root, tmp_path: Path) -> None:
    version = Version(b"", tmp_path / "empty")
    with staging(root, version) as open_staging:
        assert open_staging.complete()
        assert open_staging.seal(executable=False).content.size == 0


def test_an_earlier_file_gives_what_it_still_has(root: Root, version: Version, tmp_path: Path) -> None:
    old = Version(version.data[:500_000] + b"inserted" + version.data[500_000:900_000], tmp_path / "old")
    with old.path.open("r+b") as file:
        file.write(b"changed since it was listed")
    with old.path.open("rb") as file, staging(root, version) as open_staging:
        filled = open_staging.fill_from(file.fileno(), old.listing)
        missing = open_staging.missing()
        assert filled == len(version.chunks) - len(missing)
        assert filled >= 3
        assert 0 in missing
        for index in missing:
            open_staging.put(index, version.chunk(index))
        open_staging.seal(executable=False)
    assert staged(root, version).read_bytes() == version.data


def test_a_listing_that_is_not_of_its_content_is_found_and_removed(root: Root, version: Version) -> None:
    lying = Content(content_digest(b"something else"), version.content.size, version.content.listing)
    open_staging = Staging(root, ("2026",), lying, version.listing, name="book.cre")
    for index in open_staging.missing():
        open_staging.put(index, version.chunk(index))
    with pytest.raises(WrongWhole, match="what its author announced"):
        open_staging.seal(executable=False)
    assert os.listdir(root.path / "2026") == []


def test_one_digest_with_two_sizes_cannot_write_beyond_its_place(root: Root) -> None:
    data = b"0123456789"
    digest = content_digest(data)
    listing = Listing.of([Chunk(digest, 0, 4), Chunk(content_digest(b"next"), 4, 4), Chunk(digest, 8, 10)])
    content = Content(content_digest(b"whatever"), 18, listing.digest)
    with Staging(root, ("2026",), content, listing, name="x") as open_staging:
        open_staging.put(1, b"next")
        assert open_staging.place([(digest, data)]) == 1
        assert open_staging.missing() == [0]


@pytest.mark.parametrize("size", [2**31, CHUNK_MAX + 1])
def test_a_giant_that_claims_to_be_one_chunk_costs_nothing(root: Root, size: int) -> None:
    content = Content(content_digest(b"x"), size, content_digest(b"x"))
    with pytest.raises(WrongWhole):
        Staging(root, ("2026",), content, Listing.single(content), name="x")
    assert os.listdir(root.path / "2026") == []


def test_two_at_once_are_one_too_many(root: Root, version: Version) -> None:
    with staging(root, version), pytest.raises(StagedTwice):
        staging(root, version)
    staging(root, version).abandon()


def test_equal_files_in_one_folder_do_not_share_a_staging(root: Root, version: Version) -> None:
    with staging(root, version, "a"), staging(root, version, "b"):
        assert len(os.listdir(root.path / "2026")) == 2


@pytest.mark.parametrize("kind", ["hard link", "link", "folder", "pipe"])
def test_what_somebody_else_put_under_our_name_is_not_written_into(root: Root, version: Version, tmp_path: Path, kind: str) -> None:
    victim, place = tmp_path / "victim", staged(root, version)
    victim.write_text("precious")
    if kind == "hard link":
        os.link(victim, place)
    elif kind == "link":
        place.symlink_to(victim)
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        place.mkdir()
        with pytest.raises(CannotWrite):
            staging(root, version)
        return
    filled(root, version)
    assert victim.read_text() == "precious"
    assert place.read_bytes() == version.data


def test_a_full_disk_keeps_what_is_there_and_goes_on_when_there_is_room(small_disk: Path, tmp_path: Path) -> None:
    version = Version(random.Random(6).randbytes(900_000), tmp_path / "theirs")
    root = Root(small_disk)
    (small_disk / "fat").write_bytes(bytes(400_000))
    with Staging(root, (), version.content, version.listing, name="book") as open_staging:
        with pytest.raises(DiskFull, match="goes on by itself"):
            for index in open_staging.missing():
                open_staging.put(index, version.chunk(index))
        before = open_staging.missing()
        assert 0 < len(before) < len(version.chunks)
    (small_disk / "fat").unlink()
    with Staging(root, (), version.content, version.listing, name="book") as open_staging:
        assert open_staging.missing() == before
        for index in before:
            open_staging.put(index, version.chunk(index))
        open_staging.seal(executable=False)


def test_a_disk_that_is_read_only_or_fails_is_named(small_disk: Path, version: Version, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Root(small_disk)
    with Staging(root, (), version.content, version.listing, name="book") as open_staging:

        def failing(fd: int, data: bytes, offset: int) -> int:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(os, "pwrite", failing)
        with pytest.raises(DiskFailing, match="copy what matters"):
            open_staging.put(0, version.chunk(0))
        assert 0 in open_staging.missing()
        open_staging.abandon()
    read_only(small_disk)
    with pytest.raises(CannotWrite, match="read-only"):
        Staging(root, (), version.content, version.listing, name="book")


def test_sweeping_takes_only_what_is_ours_and_unwanted(root: Root, version: Version, tmp_path: Path, held_open: Holder) -> None:
    folder = root.path / "2026"
    other = Version(b"other", tmp_path / "other")
    filled(root, version)
    staging(root, other).close()
    (folder / f".p2psync-{'0' * 32}.gone").write_text("removed, and kept in the vault")
    for name in ("book.cre", ".p2psync.txt", ".p2psync-notes.part", f".p2psync-{'g' * 32}-00000000.part"):
        (folder / name).write_text("not of this kind")
    busy = folder / f".p2psync-{'1' * 32}.gone"
    busy.write_text("a program still writes into this")
    with held_open(busy, "w"):
        assert sweep(root, ("2026",), {version.content.digest}) == 2
    assert busy.exists()
    assert staged(root, version).exists()
    assert not staged(root, other).exists()
    assert (folder / "book.cre").exists()
    assert sweep(root, ("2026",), set()) == 2
    assert sorted(os.listdir(folder)) == [".p2psync-" + "g" * 32 + "-00000000.part", ".p2psync-notes.part", ".p2psync.txt", "book.cre"]


def test_sweeping_leaves_what_is_being_fetched(root: Root, version: Version) -> None:
    with staging(root, version) as open_staging:
        assert sweep(root, ("2026",), set()) == 0
        open_staging.put(0, version.chunk(0))
    assert sweep(root, ("2026",), set()) == 1
