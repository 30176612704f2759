"""Old versions of large files that wait in the folder of their attachment until the vault has all of them.

When a large file is replaced by one that is mostly the same, only what they do not share goes into the vault at once, or a change of 4 KiB
would cost a copy of a gigabyte first. Until the rest has been copied (store/sharing), the old file itself stays on the disk under a name of
ours, where nobody writes to it.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress

from p2psync.store.books import Books
from p2psync.store.locations import Location
from p2psync.store.root import Root
from p2psync.values.content import Content
from p2psync.values.digest import Digest
from p2psync.values.errors import P2psyncError
from p2psync.values.names import PREFIX

KEPT = re.compile(re.escape(PREFIX) + r"-([0-9a-f]{32})\.kept")


def kept_name(content: Digest) -> str:
    """The name under which the old version with this content is kept."""
    return f"{PREFIX}-{content.hex()[:32]}.kept"


def kept_with(books: Books, content: Digest) -> Iterator[tuple[Location, tuple[str, ...]]]:
    """Where the old version with this content is kept: as an attachment, and the name below its root."""
    parts = (kept_name(content),)
    for location in books.locations().values():
        with suppress(OSError, P2psyncError):
            if Root(location.root).stamp(parts) is not None:
                yield location, parts


def let_go(books: Books, content: Content) -> None:
    """Removes the old version with this content, which the vault has as a whole by now. What cannot be removed is swept away later."""
    for location, parts in kept_with(books, content.digest):
        with suppress(OSError, P2psyncError), Root(location.root).dir_fd(()) as top:
            os.unlink(parts[0], dir_fd=top)
