"""What a machine says of itself on the local network, and how members recognise each other in it (docs/protocol.md, “Discovery”).

To a stranger the TXT record is a version, a nonce and noise. A *token* is a keyed hash of the nonce and the port under the
announcement key of one mandate: who has the key finds it, who has not cannot tell it from the random tokens that fill the list
up to a power of two. Tokens are sorted, and so lie in an order that has nothing to do with the mandates.

    v=1   n=<u32be hours since 1970 | 8 random bytes>   t0..t5=<tokens of 4 bytes, 62 in each string>
    g=<invite id 16 | tag 4>...                          only while joining; at most 4

What comes from the network is recognised, or it is not; nothing in it is an error.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from p2psync.values.digest import blake2b
from p2psync.values.keys import Secret
from p2psync.values.names import InviteId, MandateId

MAX_MANDATES = 256
"""Tokens in one announcement: 256 of them make a packet of about 1,200 bytes, which fits an Ethernet frame."""

MAX_GUESTS = 4
"""Invitations that one machine makes use of at the same time."""

MAX_TXT = 1300
"""Bytes of a TXT record, ours or a stranger's (RFC 6763 §6.2)."""

MAX_HOURS_OFF = 26
"""An announcement is believed this many hours before and after the time it names: replayed next week, it lures nobody."""

ENTROPY = 32
"""Random bytes that one announcement uses up."""

_HOUR_MS = 3_600_000
_LEAST = 8
_TOKEN = 4
_PER_STRING = 62
_STRINGS = 6
_NONCE = 12
_INVITE = 16
_CONTEXT = b"p2psync1-announc"
_NOISE = b"p2psync1-annpad-"


@dataclass(frozen=True, slots=True)
class Guest:
    """One invitation that this machine wants to use: its name and its announcement key."""

    invite: InviteId
    announcement: Secret


@dataclass(frozen=True, slots=True)
class Recognised:
    """Whose announcement it is: the mandates that its machine shares with us, and the invitations to ours that it wants to use.

    ``hours_off`` is 0 for an announcement that is believed. Otherwise it was made by somebody who has the keys, but names a time so many
    hours from ours: a clock is wrong, or it is a replay; mandates and guests are empty then.
    """

    mandates: frozenset[MandateId] = frozenset()
    guests: frozenset[tuple[MandateId, InviteId]] = frozenset()
    hours_off: int = 0

    def __bool__(self) -> bool:
        return bool(self.mandates or self.guests)


NOBODY = Recognised()


def announcement(keys: Sequence[Secret], guests: Sequence[Guest], *, port: int, now_ms: int, entropy: bytes) -> bytes:
    """The TXT record of a machine that listens on ``port`` and has these announcement keys, one for each shared mandate.

    ``entropy`` is ``ENTROPY`` fresh random bytes. Of more than ``MAX_MANDATES`` keys the first ones are announced: put the mandates that
    changed last first; one that two machines share is enough to meet, and the session finds the others.
    """
    if len(entropy) != ENTROPY:
        raise ValueError(f"an announcement takes {ENTROPY} random bytes")
    nonce = (now_ms // _HOUR_MS).to_bytes(4, "big") + entropy[:8]
    tokens = [_token(key, nonce, port) for key in keys[:MAX_MANDATES]]
    tokens = sorted(tokens + _noise(entropy[8:], _padded(len(tokens)) - len(tokens)))
    strings = [b"v=1", b"n=" + nonce]
    for index, start in enumerate(range(0, len(tokens), _PER_STRING)):
        strings.append(b"t%d=" % index + b"".join(tokens[start : start + _PER_STRING]))
    if guests:
        strings.append(b"g=" + b"".join(guest.invite + _token(guest.announcement, nonce, port) for guest in guests[:MAX_GUESTS]))
    return b"".join(bytes([len(string)]) + string for string in strings)


def recognise(
    txt: bytes,
    members: Iterable[tuple[MandateId, Secret]],
    guests: Callable[[InviteId], Iterable[tuple[MandateId, Secret]]],
    *,
    port: int,
    now_ms: int,
) -> Recognised:
    """Who announces ``txt`` and listens on ``port``.

    ``members`` are our mandates with the announcement key of every generation that is still good; ``guests`` gives for the name of an
    invitation the mandates it may belong to, each with the announcement key that this invitation has there.
    Never raises: what is not well formed is ``NOBODY``.
    """
    fields = _fields(txt)
    nonce = fields.get(b"n", b"")
    if fields.get(b"v") != b"1" or len(nonce) != _NONCE or not 0 < port < 65536:
        return NOBODY
    tokens = _tokens(fields)
    mandates = frozenset(mandate for mandate, key in members if _token(key, nonce, port) in tokens)
    invited = frozenset(
        (mandate, invite)
        for invite, tag in _guests(fields.get(b"g", b""))
        for mandate, key in guests(invite)
        if _token(key, nonce, port) == tag
    )
    hours_off = abs(int.from_bytes(nonce[:4], "big") - now_ms // _HOUR_MS)
    if hours_off > MAX_HOURS_OFF:
        return Recognised(hours_off=hours_off) if mandates or invited else NOBODY
    return Recognised(mandates, invited)


def _token(key: Secret, nonce: bytes, port: int) -> bytes:
    return blake2b(nonce + port.to_bytes(2, "big"), _CONTEXT, key=key, size=_TOKEN)


def _padded(count: int) -> int:
    """How many tokens stand for ``count`` mandates: a power of two, at least 8, so that the number of clients stays blurred."""
    return max(_LEAST, 1 << (count - 1).bit_length()) if count else _LEAST


def _noise(seed: bytes, count: int) -> list[bytes]:
    """``count`` random tokens."""
    stream = b"".join(blake2b(block.to_bytes(4, "big"), _NOISE, key=seed, size=64) for block in range(count // 16 + 1))
    return [stream[at : at + _TOKEN] for at in range(0, count * _TOKEN, _TOKEN)]


def _fields(txt: bytes) -> dict[bytes, bytes]:
    """The ``key=value`` strings of a TXT record; of a key that comes twice the first, as RFC 6763 §6.4 has it."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(txt) <= MAX_TXT:
        string = txt[at + 1 : at + 1 + txt[at]]
        at += 1 + txt[at]
        key, _, value = string.partition(b"=")
        found.setdefault(key.lower(), value)
    return found


def _tokens(fields: dict[bytes, bytes]) -> frozenset[bytes]:
    strings = (fields.get(b"t%d" % index, b"") for index in range(_STRINGS))
    return frozenset(string[at : at + _TOKEN] for string in strings for at in range(0, len(string) - _TOKEN + 1, _TOKEN))


def _guests(value: bytes) -> Iterator[tuple[InviteId, bytes]]:
    size = _INVITE + _TOKEN
    for at in range(0, min(len(value) - size + 1, MAX_GUESTS * size), size):
        yield InviteId(value[at : at + _INVITE]), value[at + _INVITE : at + size]
