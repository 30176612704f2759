"""A version on its way in: a file beside its place, under a name of ours, filled chunk by chunk until it is whole.

Promises: no byte that its digest does not vouch for is written or counted; after ``kill -9`` or a power cut the same call finds what
is really there (by digest; holes are not even read) and only the rest is missing; ``seal`` returns only for the very content, checked
as a whole. Until then the file has mode 0600 and is sparse: nothing is allocated in advance, nothing stands at the user's name.

The name is ``.p2psync-<32 hex of the content>-<8 hex of the name it will get>.part``: two files of equal content in one folder do not
share it. A sealed version waits there, without a descriptor, until ``carryout`` puts it in its place.
"""

import errno
import fcntl
import os
import re
import stat
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType

import blake3

from p2psync.store import openfiles
from p2psync.store.durable import start_writing
from p2psync.store.faults import writing
from p2psync.store.holes import Filled
from p2psync.store.keptfiles import KEPT
from p2psync.store.reading import good, together
from p2psync.store.root import NoPlainFile, Root, open_at, stamp_at
from p2psync.values.content import CHUNK_MAX, Chunk, Content, Listing
from p2psync.values.digest import Digest, content_digest
from p2psync.values.errors import MandateError, PeerError, UserError
from p2psync.values.names import PREFIX

_STAGED = re.compile(re.escape(PREFIX) + r"-([0-9a-f]{32})-[0-9a-f]{8}(?:-[0-9a-f]{8})?\.part")
GONE = re.compile(re.escape(PREFIX) + r"-[0-9a-f]{32}\.gone")
"""What carryout calls a removed file until it is sure that nobody wanted it."""
_LEFT = re.compile(re.escape(PREFIX) + "-")
_OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_AHEAD = 8 * 1024 * 1024
"""Bytes written before the disk is asked to begin with them: the last fsync then has little left to wait for."""

_FICLONE = 0x40049409
"""From linux/fs.h: shares the blocks of another file until either is changed (btrfs, XFS)."""


class WrongChunk(PeerError):
    """The other side sent a piece of a file that is not the one asked for."""


class WrongWhole(MandateError):
    """The pieces of the new version of “{path}” are all there, but do not make up what its author announced. It is not taken."""


class StagedTwice(MandateError):
    """The new version of “{path}” is already being fetched."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A whole version that waits beside its place: proof that ``seal`` checked it. ``inode`` tells it from anything put in its stead.

    ``dressed``: it has its permissions, its owner and its date already, those of a new file.
    """

    folder: tuple[str, ...]
    name: str
    inode: int
    content: Content
    executable: bool
    mtime_ns: int | None
    dressed: bool = False


class Staging:
    """The version with this ``content``, being collected in the folder ``folder`` (names on disk) for the file that will be ``name`` there.

    A context manager: leaving it closes the file and leaves what is there for the next time.

    Raises:
        StagedTwice: another Staging of the same is open.
        RootGone, FolderGone, LinkInTheWay, DiskFull, CannotWrite, DiskFailing: at every use; what was put before stays.
    """

    def __init__(self, root: Root, folder: tuple[str, ...], content: Content, listing: Listing, *, name: str) -> None:
        self.root, self.folder, self.content = root, folder, content
        self.staged = staged_name(content.digest, name)
        self._shown = root.shown((*folder, name))
        self._chunks = list(listing)
        if listing.size != content.size or any(chunk.size > CHUNK_MAX for chunk in self._chunks):
            raise WrongWhole(path=self._shown)
        self._have = bytearray(len(self._chunks))
        self._places: dict[Digest, list[int]] = {}
        for index, chunk in enumerate(self._chunks):
            self._places.setdefault(chunk.digest, []).append(index)
        self._whole, self._hashed = blake3.blake3(), 0
        self._unwritten = 0
        self._is_new = False
        self._fd = self._open()
        try:
            self._find()
        except BaseException:
            self.close()
            if self._is_new:  # nothing is in it that could be of use
                with suppress(UserError, MandateError):
                    self.abandon()
            raise

    def missing(self) -> list[int]:
        """The indices of the chunks that are still to come, in order."""
        return [index for index, there in enumerate(self._have) if not there]

    def have(self) -> int:
        """Bytes that are there, each vouched for by a digest."""
        return sum(chunk.size for chunk, there in zip(self._chunks, self._have, strict=True) if there)

    def complete(self) -> bool:
        """Whether nothing is missing."""
        return all(self._have)

    def put(self, index: int, data: bytes | memoryview) -> None:
        """Writes chunk ``index`` of the listing, there and wherever else the same chunk occurs.

        Raises:
            WrongChunk: ``data`` is another one.
        """
        chunk = self._chunks[index]
        if len(data) != chunk.size or content_digest(data) != chunk.digest:
            raise WrongChunk
        self._put(chunk.digest, data)

    def place(self, pieces: Iterable[tuple[Digest, bytes]]) -> int:
        """Writes pieces, whose digests were checked, to every place of the file where they belong and are still missing; those that follow
        each other with one write. Returns the number of places.
        """
        wanted: dict[int, bytes] = {}
        for digest, data in pieces:
            wanted |= dict.fromkeys(self._lacking(digest, len(data)), data)
        for run in _runs(wanted):
            self._write(run, b"".join(wanted[index] for index in run))
        return len(wanted)

    def chunk(self, digest: Digest) -> bytes | None:
        """The chunk with this digest, if it is there; from any thread, even while another one writes or closes: its digest tells."""
        for index in self._places.get(digest, ()):
            if self._have[index]:
                with suppress(OSError):
                    data = os.pread(self._fd, self._chunks[index].size, self._chunks[index].offset)
                    return data if content_digest(data) == digest else None
        return None

    def fill_from(self, fd: int, listing: Listing) -> int:
        """Copies what is missing from an open file that had this ``listing`` when it was last read; the number of places filled.

        Where the disk can share blocks (btrfs, XFS), the whole file is shared first, and only what differs is then written.
        """
        before = self._have.count(1)
        if not before and self._share(fd):
            self._find()
        for run in together(chunk for chunk in listing if self._lacking(chunk.digest, chunk.size)):
            with suppress(OSError):
                self.place(good(fd, run))
        return self._have.count(1) - before

    def descriptor(self) -> int:
        """Another descriptor of the file, which the caller closes."""
        return os.dup(self._fd)

    def seal(self, executable: bool, mtime_ns: int | None = None) -> Sealed:
        """The version as a whole, checked and closed; what is left to do is ``carryout``'s. It is not on the disk for certain before that.

        ``mtime_ns``, if given, is the time since 1970 that the file will bear: when its author saved it.

        Raises:
            WrongWhole: the pieces are those of the listing, but listing and content do not belong together. The file is removed.
        """
        if not self.complete():
            raise ValueError("a version cannot be sealed while chunks are missing")
        with writing(self._shown):
            status = os.fstat(self._fd)
        start_writing(self._fd)
        if Digest(self._whole.digest()) != self.content.digest or status.st_size != self.content.size:
            self.abandon()
            raise WrongWhole(path=self._shown)
        self.close()
        return Sealed(self.folder, self.staged, status.st_ino, self.content, executable, mtime_ns)

    def abandon(self) -> None:
        """Removes the file: this version is not wanted any more."""
        self.close()
        with self.root.dir_fd(self.folder) as folder, writing(self._shown), suppress(FileNotFoundError):
            os.unlink(self.staged, dir_fd=folder)

    def close(self) -> None:
        """Closes the file and leaves it where it is; harmless when done twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> "Staging":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _open(self) -> int:
        with self.root.dir_fd(self.folder) as folder, writing(self._shown):
            try:
                fd = os.open(self.staged, _OPEN, dir_fd=folder)
            except FileNotFoundError:
                return self._made(folder)
            except OSError as error:
                if error.errno not in (errno.ELOOP, errno.ENXIO):
                    raise
            else:
                if _is_ours(os.fstat(fd), os.fstat(folder)):
                    return self._alone(fd)
                os.close(fd)
            os.unlink(self.staged, dir_fd=folder)  # a link, or somebody else's: nothing that a person works on has such a name
            return self._made(folder)

    def _made(self, folder: int) -> int:
        fd = os.open(self.staged, _OPEN | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder)
        self._is_new = True
        return self._alone(fd)

    def _alone(self, fd: int) -> int:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise StagedTwice(path=self._shown) from None
        except OSError:
            pass  # some network disks have no locks; then it is only a check less
        return fd

    def _find(self) -> None:
        """Takes stock of what the file holds, and gives it the size it will have, as one hole behind what is there."""
        with writing(self._shown):
            if os.fstat(self._fd).st_size != self.content.size:
                os.ftruncate(self._fd, self.content.size)
            filled = Filled(self._fd, self.content.size)
            for index, chunk in enumerate(self._chunks):
                if not self._have[index]:
                    self._find_one(index, chunk, filled)
            self._hash_on()

    def _find_one(self, index: int, chunk: Chunk, filled: Filled) -> None:
        if filled.touches(chunk):
            data = os.pread(self._fd, chunk.size, chunk.offset)
            self._have[index] = content_digest(data) == chunk.digest
        elif chunk.size == CHUNK_MAX or index == len(self._chunks) - 1:
            # A hole is a chunk of zeros: a long run of them is cut at the largest size, or the file ends with it.
            data = _zeros(chunk.size)
            self._have[index] = _zeros_digest(chunk.size) == chunk.digest
        if self._have[index] and self._hashed == index:
            self._whole.update(data)
            self._hashed += 1

    def _put(self, digest: Digest, data: bytes | memoryview) -> None:
        for index in self._lacking(digest, len(data)):
            self._write([index], data)

    def _lacking(self, digest: Digest, size: int) -> list[int]:
        """Where this chunk belongs and is missing. The size is compared too: a listing of bad faith may give one digest two sizes."""
        return [index for index in self._places.get(digest, ()) if not self._have[index] and self._chunks[index].size == size]

    def _write(self, run: Sequence[int], data: bytes | memoryview) -> None:
        """Writes chunks that follow each other."""
        with writing(self._shown):
            self._write_at(self._chunks[run[0]].offset, data)
            for index in run:
                self._have[index] = 1
            if self._hashed == run[0]:
                self._whole.update(data)
                self._hashed += len(run)
            self._hash_on()

    def _write_at(self, offset: int, data: bytes | memoryview) -> None:
        left = memoryview(data)
        while left:
            written = os.pwrite(self._fd, left, offset)
            left, offset = left[written:], offset + written
        self._unwritten += len(data)
        if self._unwritten >= _AHEAD:
            start_writing(self._fd)
            self._unwritten = 0

    def _hash_on(self) -> None:
        """Goes on with the digest of the whole as far as the chunks are there without a gap; those out of turn are read back."""
        while self._hashed < len(self._chunks) and self._have[self._hashed]:
            chunk = self._chunks[self._hashed]
            self._whole.update(os.pread(self._fd, chunk.size, chunk.offset))
            self._hashed += 1

    def _share(self, fd: int) -> bool:
        try:
            fcntl.ioctl(self._fd, _FICLONE, fd)
        except OSError:
            return False
        return True


def _runs(indices: Iterable[int]) -> Iterator[list[int]]:
    """These indices in rising order, those together that follow each other."""
    run: list[int] = []
    for index in sorted(indices):
        if run and index != run[-1] + 1:
            yield run
            run = []
        run.append(index)
    if run:
        yield run


@lru_cache(maxsize=64)
def _zeros_digest(size: int) -> Digest:
    return content_digest(_zeros(size))


def _zeros(size: int) -> bytes:
    return bytes(size)


def staged_name(digest: Digest, name: str, end: str = ".part") -> str:
    """The name under which the version ``digest`` of the file ``name`` waits beside it."""
    return f"{PREFIX}-{digest.hex()[:32]}-{zlib.crc32(os.fsencode(name)):08x}{end}"


def discard(root: Root, sealed: Sealed) -> None:
    """Removes a sealed version that is not wanted any more, if it is still what waits there; what cannot be removed is swept away later."""
    with suppress(OSError, MandateError, UserError), root.dir_fd(sealed.folder) as folder:
        stands = stamp_at(folder, sealed.name)
        if stands is not None and stands.inode == sealed.inode:
            os.unlink(sealed.name, dir_fd=folder)


def _is_ours(status: os.stat_result, folder: os.stat_result) -> bool:
    """Whether we made this: somebody may have put a second name of another file there, to have that one overwritten.

    Some disks give every file to the owner of the folder, whoever makes it.
    """
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_uid in (os.geteuid(), folder.st_uid)


def sweep(root: Root, folder_parts: tuple[str, ...], keep: set[Digest]) -> int:
    """Removes what we left in a folder, but for what is in use and the versions in ``keep``, sealed ones included; how many files.

    Raises:
        RootGone, FolderGone, LinkInTheWay, CannotRead, CannotWrite, DiskFailing.
    """
    kept = {digest.hex()[:32] for digest in keep}
    removed = 0
    for name in sorted(filter(_LEFT.match, root.names(folder_parts))):
        ours = _STAGED.fullmatch(name) or KEPT.fullmatch(name)
        if (ours and ours[1] not in kept) or GONE.fullmatch(name):
            with root.dir_fd(folder_parts) as folder, writing(root.shown((*folder_parts, name))):
                removed += _sweep_away(folder, name)
    return removed


def _sweep_away(folder: int, name: str) -> bool:
    try:
        fd = open_at(folder, name)
    except (FileNotFoundError, BlockingIOError, NoPlainFile):
        return False
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link, or a socket: nothing of ours
            return False
        raise
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if openfiles.descriptor(fd, name) is None:  # a program may still write into the old version that stood at its name
            os.unlink(name, dir_fd=folder)
            return True
    except BlockingIOError:
        pass  # being filled
    finally:
        os.close(fd)
    return False
