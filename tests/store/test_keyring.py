"""Secrets on disk: made once, read by their owner alone, and never printed."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from p2psync.store.keyring import KeyDamaged, KeyExposed, MandateSecret, device_keys, load_mandate, save_mandate
from p2psync.values.keys import Secret
from p2psync.values.names import MandateId
from p2psync.values.packing import pack

SECRET = MandateSecret(MandateId(b"m" * 32), ((0, Secret(b"a" * 32)), (1, Secret(b"b" * 32))), Secret(b"r" * 32), b"incarnat")


def test_the_keys_of_a_device_are_made_once(tmp_path: Path) -> None:
    first = device_keys(tmp_path / "device.key")
    assert device_keys(tmp_path / "device.key") == first
    assert device_keys(tmp_path / "other.key") != first
    assert len({first.sign_seed, first.transport_seed, first.box_seed}) == 3
    assert stat.S_IMODE((tmp_path / "device.key").stat().st_mode) == 0o600


@pytest.mark.parametrize("secret", [SECRET, MandateSecret(SECRET.mandate, SECRET.group[:1], None, b"another!")])
def test_the_secret_of_a_mandate_comes_back_as_it_was_kept(tmp_path: Path, secret: MandateSecret) -> None:
    save_mandate(tmp_path / "secret", secret)
    assert load_mandate(tmp_path / "secret") == secret
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620])
def test_a_key_that_others_could_read_is_refused(tmp_path: Path, mode: int) -> None:
    device_keys(tmp_path / "device.key")
    save_mandate(tmp_path / "secret", SECRET)
    for name, read in (("device.key", device_keys), ("secret", load_mandate)):
        (tmp_path / name).chmod(mode)
        with pytest.raises(KeyExposed, match="chmod 600"):
            read(tmp_path / name)


@pytest.mark.parametrize(
    "content",
    [b"", b"nonsense", b"\xc1" * 5000, pack([1, b"short", b"b" * 32, b"c" * 32]), pack([1, b"a" * 32, b"b" * 32]), pack(["1"] * 4)],
    ids=["empty", "nonsense", "long", "short", "few", "text"],
)
def test_a_damaged_key_is_said_to_be_and_left_alone(tmp_path: Path, content: bytes) -> None:
    for name, read in (("device.key", device_keys), ("secret", load_mandate)):
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
        with pytest.raises(KeyDamaged, match="damaged"):
            read(tmp_path / name)
        assert (tmp_path / name).read_bytes() == content


def test_no_secret_shows_itself(tmp_path: Path) -> None:
    keys = device_keys(tmp_path / "device.key")
    shown = repr(keys) + repr(SECRET) + str(SECRET)
    assert "<secret>" in shown and "aaaa" not in shown and "rrrr" not in shown
    assert keys.sign_seed.hex() not in shown
