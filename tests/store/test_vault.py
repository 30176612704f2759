"""What was kept comes back as it was, or it is said that it does not."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from p2psync.store.chunking import describe
from p2psync.store.faults import DatabaseDamaged, DiskFull
from p2psync.store.vault import HistoryTooNew, Vault
from p2psync.values.content import CHUNK_MAX, Chunk
from p2psync.values.digest import Digest, content_digest

pytestmark = pytest.mark.usefixtures("no_leaked_descriptors")


@pytest.fixture
def reported() -> list[Digest]:
    return []


@pytest.fixture
def vault(tmp_path: Path, reported: list[Digest]) -> Iterator[Vault]:
    vault = Vault(tmp_path / "vault.db", reported.append)
    yield vault
    vault.close()


def keyed(*pieces: bytes) -> list[tuple[Digest, bytes]]:
    return [(content_digest(piece), piece) for piece in pieces]


def change(vault: Vault, statement: str, *values: object) -> None:
    with sqlite3.connect(vault.path) as connection:
        connection.execute(statement, values)
    connection.close()


def test_kept_is_found_once_and_for_all(vault: Vault) -> None:
    chunks = keyed(b"one", bytes(CHUNK_MAX), os.urandom(50_000), b"")
    assert vault.keep(chunks) == 4
    assert vault.keep([*chunks, *keyed(b"two")]) == 1
    assert vault.keep([]) == 0
    assert [vault.get(digest) for digest, _ in chunks] == [piece for _, piece in chunks]
    absent = content_digest(b"absent")
    assert vault.has([absent, *(digest for digest, _ in chunks)]) == {digest for digest, _ in chunks}
    assert vault.get(absent) is None
    assert stat.S_IMODE(vault.path.stat().st_mode) == 0o600


def test_it_survives_being_closed_and_opened(vault: Vault, tmp_path: Path) -> None:
    chunks = keyed(*(os.urandom(5_000) for _ in range(1_000)))
    assert vault.keep(iter(chunks)) == 1_000
    vault.close()
    vault.close()
    again = Vault(tmp_path / "vault.db")
    assert again.has(digest for digest, _ in chunks) == {digest for digest, _ in chunks}
    assert again.get(chunks[500][0]) == chunks[500][1]
    assert again.size > 5_000_000
    again.close()


def test_it_survives_kill_9(tmp_path: Path, forked: Callable[..., Any]) -> None:
    chunks = keyed(b"durable", os.urandom(30_000))

    def keep_and_die() -> None:
        Vault(tmp_path / "vault.db").keep(chunks)
        os.kill(os.getpid(), 9)

    with pytest.raises(ChildProcessError):
        forked(keep_and_die)
    vault = Vault(tmp_path / "vault.db")
    assert [vault.get(digest) for digest, _ in chunks] == [piece for _, piece in chunks]
    vault.close()


def test_what_can_be_compressed_is(vault: Vault) -> None:
    vault.keep(keyed(*(f"{number};1000;2000;Debitoren\n".encode() * 2_000 for number in range(50))))
    assert vault.size < 500_000


def test_all_of_a_call_or_nothing(vault: Vault) -> None:
    with pytest.raises(ValueError, match="digest"):
        vault.keep([*keyed(b"good"), (content_digest(b"another"), b"bad")])
    assert vault.has([content_digest(b"good")]) == set()

    def breaks() -> Iterator[tuple[Digest, bytes]]:
        yield from keyed(*(str(number).encode() for number in range(1_000)))
        raise InterruptedError

    with pytest.raises(InterruptedError):
        vault.keep(breaks())
    assert vault.has([content_digest(b"0")]) == set()
    assert vault.keep(keyed(b"good")) == 1


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE chunk SET stored = zeroblob(length(stored))",
        "UPDATE chunk SET stored = substr(stored, 1, length(stored) - 1)",
        "UPDATE chunk SET stored = x''",
        "UPDATE chunk SET packed = 1 - packed",
        "UPDATE chunk SET size = size + 1 WHERE packed",
        # a frame that claims to hold 1 GiB
        "UPDATE chunk SET stored = CAST(x'28b52ffda00000004001000000' || stored AS BLOB), packed = 1",
        "UPDATE chunk SET stored = 7, size = 7.5",
    ],
)
def test_a_damaged_chunk_is_reported_absent_and_mended(vault: Vault, reported: list[Digest], damage: str) -> None:
    text, noise = b"1000;2000;Debitoren\n" * 500, os.urandom(10_000)
    vault.keep(keyed(text, noise))
    change(vault, damage)
    hurt = content_digest(text)
    assert vault.get(hurt) is None
    assert reported == [hurt]
    assert vault.damaged() == {hurt}
    assert hurt not in vault.has([hurt])
    assert vault.get(hurt) is None  # it is known now: no second alarm
    assert reported == [hurt]
    assert vault.keep(keyed(text)) == 1
    assert vault.get(hurt) == text
    assert vault.damaged() == set()


def test_a_chunk_exchanged_for_another_is_found(vault: Vault, reported: list[Digest]) -> None:
    vault.keep(keyed(b"mine"))
    change(vault, "UPDATE chunk SET stored = ?", b"thei")
    assert vault.get(content_digest(b"mine")) is None
    assert reported == [content_digest(b"mine")]


def test_a_damaged_file_is_said_to_be_damaged(tmp_path: Path) -> None:
    (tmp_path / "vault.db").write_bytes(b"no database at all" * 1000)
    with pytest.raises(DatabaseDamaged, match="put it back from a backup"):
        Vault(tmp_path / "vault.db")


def test_pages_that_are_damaged_cost_their_chunks_only(vault: Vault, tmp_path: Path, reported: list[Digest]) -> None:
    chunks = keyed(*(os.urandom(40_000) for _ in range(100)))
    vault.keep(chunks)
    vault.close()
    with (tmp_path / "vault.db").open("r+b") as file:
        file.seek(2_000_000)
        file.write(os.urandom(100_000))
    again = Vault(tmp_path / "vault.db", reported.append)
    results = [again.get(digest) for digest, _ in chunks]
    assert all(data in (None, piece) for data, (_, piece) in zip(results, chunks, strict=True))
    assert 1 <= results.count(None) <= 8
    assert len(reported) == results.count(None)
    again.close()


def test_a_vault_of_the_future_is_left_alone(vault: Vault, tmp_path: Path) -> None:
    change(vault, "PRAGMA user_version = 99")
    with pytest.raises(HistoryTooNew, match="Update this one"):
        Vault(tmp_path / "vault.db")


def test_a_full_disk_stores_nothing_of_the_call_and_harms_nothing(small_disk: Path) -> None:
    vault = Vault(small_disk / "vault.db")
    vault.keep(keyed(b"before"))
    large = keyed(*(os.urandom(50_000) for _ in range(40)))
    with pytest.raises(DiskFull, match="Make room"):
        vault.keep(large)
    assert vault.get(content_digest(b"before")) == b"before"
    assert vault.has(digest for digest, _ in large) == set()
    assert vault.keep(keyed(b"small enough")) == 1
    vault.close()


def test_several_threads_keep_and_read(vault: Vault) -> None:
    batches = [keyed(*(os.urandom(3_000) for _ in range(100))) for _ in range(4)]
    wrong: list[object] = []

    def work(batch: list[tuple[Digest, bytes]]) -> None:
        vault.keep(batch)
        wrong.extend(digest for digest, piece in batch if vault.get(digest) != piece)

    threads = [threading.Thread(target=work, args=(batch,)) for batch in batches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert vault.has(digest for batch in batches for digest, _ in batch) == {digest for batch in batches for digest, _ in batch}


def test_a_sink_for_whole_files(vault: Vault, tmp_path: Path) -> None:
    data = os.urandom(300_000)
    (tmp_path / "book").write_bytes(data)
    fd = os.open(tmp_path / "book", os.O_RDONLY)
    with vault.keeping() as keeping:
        _, listing = describe(fd, len(data), keeping)
    os.close(fd)
    assert b"".join(vault.get(chunk.digest) or b"" for chunk in listing) == data


def test_a_sink_that_is_left_by_an_error_keeps_nothing(vault: Vault) -> None:
    with pytest.raises(RuntimeError), vault.keeping() as keeping:
        keeping(Chunk(content_digest(b"x"), 0, 1), b"x")
        raise RuntimeError
    assert vault.has([content_digest(b"x")]) == set()
