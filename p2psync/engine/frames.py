"""Frames: how messages travel through the channel, whole or in parts, sealed, padded, and with a new key every 65,536 frames.

    u16be length | Noise message (17..65535 bytes)
      plaintext   u8 kind (0 whole, 1 part, 2 last part) | u16be length | piece | zero padding

The parts of a message follow each other with nothing in between. What a message says it is bounds how much of it is ever kept.
"""

from collections.abc import Iterator

from p2psync.engine.encoding import limit_of
from p2psync.engine.noise import MAX_MESSAGE, TAG, Cipher
from p2psync.values.errors import Malformed, PeerError

WHOLE, PART, LAST = range(3)

PAD = 256
"""Control messages are padded to multiples of this, so that their length says little."""

_HEAD = 3
MAX_PIECE = (MAX_MESSAGE - TAG) // PAD * PAD - _HEAD
"""Bytes of a message in one frame: as many as leave room for whole padding."""

REKEY_EVERY = 65_536
"""Frames in one direction until its key is replaced; both sides count."""


class Channel:
    """Both directions of an established channel: message bodies in, bytes out, and back. No I/O."""

    def __init__(self, sealer: Cipher, opener: Cipher) -> None:
        self._sealer, self._opener = sealer, opener
        self._received = memoryview(b"")
        self._assembly = Assembly()
        self._fault: PeerError | None = None

    def seal(self, body: bytes, *, padded: bool) -> bytes:
        """The bytes to send for one message body. They must all be sent, in order, and once.

        Raises:
            NonceExhausted: a new handshake is due.
        """
        out: list[bytes] = []
        for plaintext in plaintexts(body, padded=padded):
            sealed = self._sealer.seal(plaintext)
            out += (len(sealed).to_bytes(2, "big"), sealed)
            if self._sealer.count % REKEY_EVERY == 0:
                self._sealer.rekey()
        return b"".join(out)

    def feed(self, data: bytes | bytearray) -> None:
        """Take in bytes as they came, whatever their cut; :meth:`next` is to be emptied before more is fed."""
        self._received = memoryview(b"".join((self._received, data)) if self._received else data)

    @property
    def opened(self) -> int:
        """Frames that came in whole and authentic so far."""
        return self._opener.count

    def next(self) -> bytes | None:
        """The next message body, or None until more is fed. After an error every call raises that error.

        Raises:
            NotAuthentic: the bytes are not what the other side sealed next.
            Malformed: they are, but no frames.
            UnknownMessage: a part of a message of a kind that is not ours.
        """
        if self._fault:
            raise self._fault
        try:
            return self._next()
        except PeerError as fault:
            self._fault = fault
            self._received = memoryview(b"")
            raise

    def _next(self) -> bytes | None:
        while (frame := self._cut()) is not None:
            plaintext = self._opener.open(frame)
            if self._opener.count % REKEY_EVERY == 0:
                self._opener.rekey()
            body = self._assembly.add(plaintext)
            if body is not None:
                return body
        return None

    def _cut(self) -> memoryview | None:
        if len(self._received) < 2:
            return None
        end = 2 + int.from_bytes(self._received[:2], "big")
        if end < 2 + TAG + 1:
            raise Malformed(why="a frame that is too short")
        if len(self._received) < end:
            return None
        frame, self._received = self._received[2:end], self._received[end:]
        return frame


def plaintexts(body: bytes, *, padded: bool) -> Iterator[bytes]:
    """What is to be sealed for one message body, frame by frame."""
    size = len(body)
    if size <= MAX_PIECE:
        yield _plaintext(WHOLE, body, padded)
        return
    with memoryview(body) as view:
        for start in range(0, size, MAX_PIECE):
            kind = PART if start + MAX_PIECE < size else LAST
            yield _plaintext(kind, view[start : start + MAX_PIECE], padded)


def _plaintext(kind: int, piece: bytes | memoryview, padded: bool) -> bytes:
    padding = bytes(-(_HEAD + len(piece)) % PAD) if padded else b""
    return b"".join((bytes((kind,)), len(piece).to_bytes(2, "big"), piece, padding))


class Assembly:
    """The message that is being put together from its parts."""

    def __init__(self) -> None:
        self._parts: list[memoryview] = []
        self._room = 0

    def add(self, plaintext: bytes) -> bytes | None:
        """Add one opened frame; the body of the message when it is complete.

        Raises:
            Malformed: no frame, a part out of order, or more than a message of that kind may have.
            UnknownMessage: the parts are of a message of a kind that is not ours.
        """
        kind, piece = _opened(plaintext)
        if kind == WHOLE and not self._parts:
            return bytes(piece)
        if kind not in (PART, LAST) or not piece or (kind == LAST and not self._parts):
            raise Malformed(why="a part out of order")
        if not self._parts:
            self._room = limit_of(bytes(piece[:2]))
        self._room -= len(piece)
        if self._room < 0:
            raise Malformed(why="a message in parts that is too long")
        self._parts.append(piece)
        if kind == PART:
            return None
        body = b"".join(self._parts)
        self._parts.clear()
        return body


def _opened(plaintext: bytes) -> tuple[int, memoryview]:
    end = _HEAD + int.from_bytes(plaintext[1:_HEAD], "big")
    if len(plaintext) < max(end, _HEAD):
        raise Malformed(why="a frame shorter than it says")
    if plaintext[end:].strip(b"\0"):
        raise Malformed(why="padding that is not zero")
    return plaintext[0], memoryview(plaintext)[_HEAD:end]
