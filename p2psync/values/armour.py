"""A ticket as text: base64 between two marked lines, under a line for whoever opens the file in an editor.

It survives what mail programs and editors do to text: other line ends, a byte order mark, “> ” before each line, spaces at the ends.
"""

import base64
import binascii
import re

from p2psync.values.digest import blake2b
from p2psync.values.errors import UserError

MAX_TEXT = 16 * 1024
"""Bytes of a ticket file; nothing beyond is read."""

_NOTE = "This file is a key to a shared mandate. Open it with p2psync; then erase it."
_BEGIN = "-----BEGIN P2PSYNC TICKET-----"
_END = "-----END P2PSYNC TICKET-----"
_WIDTH = 64
_CHECK = 4


class TicketRefused(UserError):
    """This ticket cannot be used."""


class NotATicket(TicketRefused):
    """This is not a ticket of p2psync. Choose the file whose name ends in “.crsync”."""


class TicketDamaged(TicketRefused):
    """This ticket was damaged on its way. Copy it once more from where it was made, or ask for a new one."""


def armoured(raw: bytes) -> bytes:
    """The text of a ticket file around ``raw`` and its checksum."""
    text = base64.b64encode(raw + _check(raw)).decode()
    lines = [text[at : at + _WIDTH] for at in range(0, len(text), _WIDTH)]
    return "\n".join([_NOTE, "", _BEGIN, *lines, _END, ""]).encode()


def bared(text: bytes) -> bytes:
    """What ``armoured`` was given, from the text of a ticket file.

    Raises:
        NotATicket: there is no ticket in it.
        TicketDamaged: there is one, but bytes of it changed or are missing. Nobody needs to have meant that.
    """
    if len(text) > MAX_TEXT:
        raise NotATicket()
    lines = [re.sub(r"^[>\s]+", "", line).rstrip() for line in text.decode("utf-8-sig", "replace").splitlines()]
    body = lines[lines.index(_BEGIN) + 1 :] if _BEGIN in lines else []
    if _END not in body:
        raise TicketDamaged() if b"P2PSYNC TICKET" in text else NotATicket()
    try:
        data = base64.b64decode("".join(body[: body.index(_END)]).encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise TicketDamaged() from None
    raw, check = data[:-_CHECK], data[-_CHECK:]
    if len(check) != _CHECK or _check(raw) != check:
        raise TicketDamaged()
    return raw


def _check(raw: bytes) -> bytes:
    """Tells “damaged” from “forged”: an accident changes it, a forger does not."""
    return blake2b(raw, b"p2psync1-ticketc", size=_CHECK)
