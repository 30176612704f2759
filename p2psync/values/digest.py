"""Hashes and derived keys: BLAKE3 for content, keyed and personalised BLAKE2b for everything in the protocol (RFC 7693).

Every BLAKE2b use has its own 16-byte personalisation, so that no value can stand for another.
"""

from typing import NewType

import blake3 as _blake3
import nacl.encoding
import nacl.hash

Digest = NewType("Digest", bytes)
"""A BLAKE3 digest of content, 32 bytes."""


def content_digest(data: bytes | memoryview) -> Digest:
    """BLAKE3-256 of ``data``: the identity of a chunk, a file or a chunk list."""
    return Digest(_blake3.blake3(data).digest())


def kdf(key: bytes, context: bytes, *parts: bytes) -> bytes:
    """A 32-byte key: BLAKE2b-256 of ``u32be length || part`` for each part, with ``key`` and a 16-byte ``context``."""
    return blake2b(b"".join(len(part).to_bytes(4, "big") + part for part in parts), context, key=key)


def blake2b(data: bytes, context: bytes, *, key: bytes = b"", size: int = 32) -> bytes:
    """BLAKE2b of ``data``, ``size`` bytes long, personalised by a ``context`` of exactly 16 bytes."""
    if len(context) != 16:
        raise ValueError("a context has exactly 16 bytes")
    return nacl.hash.blake2b(data, digest_size=size, key=key, person=context, encoder=nacl.encoding.RawEncoder)


def fingerprint(data: bytes) -> str:
    """80 bits of ``data`` as people compare them: four groups of four in Crockford's base32."""
    number = int.from_bytes(blake2b(data, b"p2psync1-finger-", size=10), "big")
    letters = "".join("0123456789ABCDEFGHJKMNPQRSTVWXYZ"[number >> shift & 31] for shift in range(75, -1, -5))
    return "-".join(letters[start : start + 4] for start in range(0, 16, 4))
