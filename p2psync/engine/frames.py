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
        self._begun = bytearray()
        self._received = memoryview(b"")
        self._assembly = Assembly()
        self._fault: PeerError | None = None

    def seal(self, body: bytes, head: bytes = b"", *, padded: bool) -> bytes:
        """The bytes to send for the message body ``head | body``. They must all be sent, in order, and once.

        Raises:
            NonceExhausted: a new handshake is due.
        """
        return b"".join(self.frames(body, head, padded=padded))

    def frames(self, body: bytes, head: bytes = b"", *, padded: bool) -> Iterator[bytes]:
        """As ``seal``, in pieces, all of which must be taken."""
        for plaintext in plaintexts(body, head, padded=padded):
            sealed = self._sealer.seal(plaintext)
            yield len(sealed).to_bytes(2, "big")
            yield sealed
            if self._sealer.count % REKEY_EVERY == 0:
                self._sealer.rekey()

    def feed(self, data: bytes | bytearray) -> None:
        """Take in bytes as they came, whatever their cut; :meth:`next` is to be emptied before more is fed."""
        self._received = memoryview(data)

    @property
    def opened(self) -> int:
        """Frames that came in whole and authentic so far."""
        return self._opener.count

    def next(self) -> bytes | memoryview | None:
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

    def _next(self) -> bytes | memoryview | None:
        while (frame := self._cut()) is not None:
            plaintext = self._opener.open(frame)
            if self._opener.count % REKEY_EVERY == 0:
                self._opener.rekey()
            body = self._assembly.add(plaintext)
            if body is not None:
                return body
        return None

    def _cut(self) -> memoryview | None:
        """The next frame: where it lies, or put together when it came in several cuts."""
        begun = self._begun
        if not begun and len(self._received) >= 2 and len(self._received) >= (end := _end(self._received)):
            frame, self._received = self._received[2:end], self._received[end:]
            return frame
        self._move(2 - len(begun))
        if len(begun) < 2:
            return None
        self._move(_end(begun) - len(begun))
        if len(begun) < _end(begun):
            return None
        self._begun = bytearray()
        return memoryview(begun)[2:]

    def _move(self, count: int) -> None:
        """Add up to ``count`` bytes of what was received to the frame that has begun."""
        if count > 0:
            self._begun += self._received[:count]
            self._received = self._received[count:]


def _end(frame: bytearray | memoryview) -> int:
    """Where a frame ends that begins here. Raises: Malformed."""
    end = 2 + int.from_bytes(frame[:2], "big")
    if end < 2 + TAG + 1:
        raise Malformed(why="a frame that is too short")
    return end


def plaintexts(body: bytes, head: bytes = b"", *, padded: bool) -> Iterator[bytes]:
    """What is to be sealed for the message body ``head | body``, frame by frame."""
    if len(head) + len(body) <= MAX_PIECE:
        yield _plaintext(WHOLE, (head, body), padded)
        return
    view = memoryview(body)
    begin, end = 0, MAX_PIECE - len(head)
    while begin < len(body):
        kind = PART if end < len(body) else LAST
        yield _plaintext(kind, (head, view[begin:end]), padded)
        begin, end, head = end, end + MAX_PIECE, b""


def _plaintext(kind: int, pieces: tuple[bytes, bytes | memoryview], padded: bool) -> bytes:
    size = sum(map(len, pieces))
    padding = bytes(-(_HEAD + size) % PAD) if padded else b""
    return b"".join((bytes((kind,)), size.to_bytes(2, "big"), *pieces, padding))


class Assembly:
    """The message that is being put together from its parts."""

    def __init__(self) -> None:
        self._parts: list[memoryview] = []
        self._room = 0

    def add(self, plaintext: bytes) -> bytes | memoryview | None:
        """Add one opened frame; the body of the message when it is complete.

        Raises:
            Malformed: no frame, a part out of order, or more than a message of that kind may have.
            UnknownMessage: the parts are of a message of a kind that is not ours.
        """
        kind, piece = _opened(plaintext)
        if kind == WHOLE and not self._parts:
            return piece
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
