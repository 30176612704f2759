"""What the ledger keeps of this machine's own view: paths, places, copies, chunk lists and addresses come back as they were put."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psync.engine.reconcile import Agreed
from p2psync.store import addresses, copies, ledger, listings, locations, paths
from p2psync.store.copies import Copy
from p2psync.store.locations import Location
from p2psync.store.paths import PathView
from p2psync.store.root import RootGone
from p2psync.store.scan import Fresh
from p2psync.values.content import EMPTY, Chunk, Content, File, Folder, Gone, Listing, Observed, Stamp
from p2psync.values.digest import Digest, content_digest
from p2psync.values.entry import Ref
from p2psync.values.names import DeviceId, RecordId, RelPath

I64 = st.integers(-(2**63), 2**63 - 1)
REFS = st.frozensets(st.builds(Ref, st.binary(min_size=32, max_size=32).map(RecordId), st.integers(0, 255)), max_size=3)


CONTENTS = st.sampled_from([content_digest(bytes([n])) for n in range(4)]).map(lambda d: Content(d, d[0] << 42, Digest(d[::-1])))
FILES = st.builds(File, CONTENTS, st.booleans())


@st.composite
def observations(draw) -> Observed:
    state = draw(FILES | st.just(Folder()))
    kind, size, runs = ("file", state.content.size, state.executable) if isinstance(state, File) else ("folder", 4096, False)
    stamp = Stamp(kind, size, draw(I64), draw(I64), draw(st.integers(0, 2**64 - 1)), runs)  # type: ignore[arg-type]
    return draw(st.sampled_from([Observed, Fresh]))(stamp, state)


AGREEMENTS = st.builds(Agreed, FILES | st.sampled_from([Folder(), Gone()]), REFS, REFS)


def memory() -> sqlite3.Connection:
    db = sqlite3.connect(":memory:")
    db.executescript(ledger._SCHEMA)
    return db


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    found = memory()
    yield found
    found.close()


NAMES = st.sampled_from(["recus", "recus/a", "recus/é/b", "recus/sub/a b", "compta.cre"])


@given(NAMES, st.none() | observations(), st.none() | AGREEMENTS, st.booleans())
def test_a_view_comes_back_as_it_was_put(name: str, observed: Observed | None, agreed: Agreed | None, single: bool) -> None:
    db = memory()
    view = PathView(RelPath(name), () if single else tuple(name.split("/"))[1:], observed, agreed)
    paths.put(db, PathView(view.path, ("an", "earlier", "one")))
    paths.put(db, view)
    found = paths.get(db, view.path)
    assert found == view and type(found.observed) is type(observed)
    assert list(paths.below(db, view.path)) == [view]
    db.close()


@given(st.none() | observations(), st.none() | AGREEMENTS)
def test_a_path_is_unsettled_while_what_was_seen_is_not_what_was_agreed(observed: Observed | None, agreed: Agreed | None) -> None:
    db = memory()
    view = PathView(RelPath("recus/a"), ("a",), observed, agreed)
    paths.put(db, view)
    here = observed.state if observed else Gone()
    settled = here == (agreed.state if agreed else Gone())
    assert (view.path in paths.unsettled(db)) is not settled
    assert paths.unsettled(db, RelPath("elsewhere")) == set()
    db.close()


def seen(text: str) -> Observed:
    digest = content_digest(text.encode())
    return Observed(Stamp("file", len(text), 0, 0, 1, False), File(Content(digest, len(text), digest)))


def test_what_is_below_a_name_is_below_that_name_alone(db: sqlite3.Connection) -> None:
    names = ["recus", "recus/a", "recus/a/b", "recus-2", "recus 3/a", "recus0", "recu", "Recus/a"]
    for name in names:
        paths.put(db, PathView(RelPath(name), ()))
    assert [view.path.text for view in paths.below(db, RelPath("recus"))] == ["recus", "recus/a", "recus/a/b"]
    paths.forget(db, RelPath("recus"))
    left = [name for name in names if paths.get(db, RelPath(name)) is not None]
    assert left == ["recus-2", "recus 3/a", "recus0", "recu", "Recus/a"]


def test_where_a_content_was_seen(db: sqlite3.Connection) -> None:
    for name, text in (("recus/a", "x"), ("recus/b", "y"), ("compta.cre", "x")):
        paths.put(db, PathView(RelPath(name), (), seen(text)))
    assert {view.path.text for view in paths.holding(db, content_digest(b"x"))} == {"recus/a", "compta.cre"}
    assert paths.holding(db, content_digest(b"z")) == []


# ---- places


@given(st.none() | st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)), st.none() | st.just("many-deletions"))
def test_a_place_comes_back_as_it_was_put(identity: tuple[int, int] | None, halted: str | None) -> None:
    db = memory()
    place = Location(RelPath("recus"), "folder", Path("/büro/recus"), identity, halted)
    locations.put(db, place)
    assert locations.get_all(db) == {place.name: place}
    locations.forget(db, place.name)
    assert locations.get_all(db) == {}
    db.close()


def test_a_single_file_is_in_its_folder_and_nothing_else_of_it_is_meant(tmp_path: Path) -> None:
    (tmp_path / "compta.cre").touch()
    single = Location(RelPath("compta.cre"), "file", tmp_path / "compta.cre")
    assert single.root == tmp_path and single.parts(()) == ("compta.cre",) and single.open().path == tmp_path
    assert single.covers(RelPath("compta.cre")) and not single.covers(RelPath("compta.cre/a"))


def test_a_folder_is_the_one_that_it_was_or_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "recus").mkdir()
    status = (tmp_path / "recus").stat()
    folder = Location(RelPath("recus"), "folder", tmp_path / "recus", (status.st_dev, status.st_ino))
    assert folder.open().path == tmp_path / "recus" and folder.parts(("a", "b")) == ("a", "b")
    assert folder.covers(RelPath("recus/a")) and not folder.covers(RelPath("recus"))
    (tmp_path / "recus").rename(tmp_path / "elsewhere")
    with pytest.raises(RootGone):
        folder.open()
    (tmp_path / "recus").mkdir()
    with pytest.raises(RootGone, match="another folder"):
        folder.open()


# ---- copies and chunk lists


def test_copies_come_back_as_they_were_put(db: sqlite3.Connection) -> None:
    one = Copy(Ref(RecordId(b"r" * 32), 3), RelPath("recus/sub/a"), ("sub", "a (Marie).txt"), content_digest(b"x"))
    other = one._replace(ref=Ref(RecordId(b"r" * 32), 4), path=RelPath("recus/b"), disk=("b (Marie)",))
    copies.put(db, one)
    copies.put(db, other)
    assert copies.of_path(db, one.path) == [one] and set(copies.everything(db)) == {one, other}
    moved = one._replace(disk=("sub", "a (Marie 2).txt"))
    copies.put(db, moved)
    assert copies.of_path(db, one.path) == [moved]
    copies.forget(db, one.ref)
    assert copies.everything(db) == [other]


def listed(*texts: str) -> tuple[Content, Listing]:
    chunks, offset = [], 0
    for text in texts:
        chunks.append(Chunk(content_digest(text.encode()), offset, len(text)))
        offset += len(text)
    listing, whole = Listing.of(chunks), content_digest("".join(texts).encode())
    return Content(whole, offset, whole if len(chunks) < 2 else listing.digest), listing


def test_the_list_of_one_chunk_follows_from_the_content(db: sqlite3.Connection) -> None:
    content, listing = listed("one")
    listings.put(db, content, listing)
    assert db.execute("SELECT count(*) FROM listings").fetchone() == (0,)
    assert listings.get(db, content) == listing
    empty = listings.get(db, EMPTY)
    assert empty is not None and list(empty) == []


def test_a_chunk_list_is_kept_once_and_tells_where_each_chunk_is(db: sqlite3.Connection) -> None:
    content, listing = listed("one", "two", "one")
    other, its = listed("two", "three")
    assert listings.get(db, content) is None and listings.packed_listing(db, content.listing) is None
    for _ in range(2):
        listings.put(db, content, listing)
        listings.put(db, other, its)
    assert listings.get(db, content) == listing and listings.packed_listing(db, content.listing) == listing.packed
    assert set(listings.containing(db, content_digest(b"two"))) == {(content.digest, 3, 3), (other.digest, 0, 3)}
    assert set(listings.containing(db, content_digest(b"one"))) == {(content.digest, 0, 3), (content.digest, 6, 3)}
    assert listings.containing(db, content_digest(b"four")) == []


# ---- addresses

MARIE, LUC = DeviceId(b"m" * 32), DeviceId(b"l" * 32)


def test_the_latest_address_is_tried_first_and_few_are_kept(db: sqlite3.Connection) -> None:
    for turn in range(12):
        addresses.note(db, MARIE, f"192.168.1.{turn}", 4000, turn + 1)
    assert addresses.of(db, MARIE) == [(f"192.168.1.{turn}", 4000) for turn in range(11, 3, -1)]
    addresses.note(db, MARIE, "192.168.1.5", 4000, 99)
    assert addresses.of(db, MARIE)[0] == ("192.168.1.5", 4000)
    assert addresses.of(db, LUC) == [] and addresses.devices(db) == [MARIE]


def test_what_a_device_says_of_itself_replaces_what_it_said_before_and_nothing_that_was_tried(db: sqlite3.Connection) -> None:
    addresses.note(db, MARIE, "10.0.0.1", 4000, 7)
    addresses.says(db, MARIE, [("10.0.0.1", 4000), ("10.0.0.2", 4000)])
    addresses.says(db, MARIE, [("10.0.0.3", 4000)])
    assert addresses.of(db, MARIE) == [("10.0.0.1", 4000), ("10.0.0.3", 4000)]


def test_only_addresses_of_an_office_are_taken() -> None:
    spots = [
        (bytes(map(int, text.split("."))), 4000) for text in ("192.168.1.2", "10.1.1.1", "8.8.8.8", "224.0.0.1", "0.0.0.0", "169.254.1.1")
    ]
    assert [host for host, _ in addresses.usable(spots)] == ["192.168.1.2", "10.1.1.1", "169.254.1.1"]
    assert addresses.usable([(bytes(15) + b"\1", 1), (b"\xfe\x80" + bytes(14), 1), (b"\x20\x01" + b"\x48" * 14, 1)])[-1] == ("fe80::", 1)


def test_peers_are_told_only_of_addresses_that_worked(db: sqlite3.Connection) -> None:
    addresses.note(db, MARIE, "fe80::1%eth0", 4000, 7)
    addresses.note(db, LUC, "10.0.0.2", 4001, 8)
    addresses.says(db, LUC, [("10.0.0.9", 4000)])
    told = dict(addresses.packed(db, set()))
    assert told == {MARIE: ((b"\xfe\x80" + bytes(13) + b"\1", 4000),), LUC: ((b"\x0a\0\0\2", 4001),)}
    assert dict(addresses.packed(db, {LUC})).keys() == {MARIE}


def test_when_somebody_was_last_there(db: sqlite3.Connection) -> None:
    addresses.met(db, MARIE, 5)
    addresses.met(db, MARIE, 9)
    assert addresses.last_met(db) == {MARIE: 9}
