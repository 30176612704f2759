"""Memory that nobody holds any more goes back to the system, and what lets go of its own works as before."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2psync.store import memory
from p2psync.store.ledger import Ledger
from p2psync.store.vault import Vault
from p2psync.values.digest import content_digest

MIB = 1024 * 1024


@pytest.mark.skipif(memory._trim is None or not memory.resident(), reason="this C library gives back by itself, or nobody can tell")
def test_what_was_freed_in_the_middle_is_given_back() -> None:
    pieces = [bytes(64 * 1024) + b"x" for _ in range(640)]
    held = pieces[::16]
    full = memory.resident()
    pieces.clear()
    memory.give_back()
    assert memory.resident() < full - 20 * MIB and len(held) == 40


def test_a_ledger_at_rest_is_read_and_written_as_before(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.put("name", b"Dupont")
    with ledger.reading():
        assert ledger.get("name") == b"Dupont"
        ledger.rest()  # what somebody reads over stays
        assert ledger.get("name") == b"Dupont"
    ledger.rest()
    ledger.put("name", b"Favre")
    with ledger.reading():
        assert ledger.get("name") == b"Favre"
    ledger.close()
    ledger.rest()


def test_a_vault_at_rest_is_read_and_written_as_before(tmp_path: Path) -> None:
    vault = Vault(tmp_path / "vault.db")
    for data in (b"one", b"two"):
        vault.keep([(content_digest(data), data)])
        assert vault.get(content_digest(data)) == data
        vault.rest()
    assert vault.get_all([content_digest(b"one"), content_digest(b"two")]).keys() == {content_digest(b"one"), content_digest(b"two")}
    vault.close()
    vault.rest()
