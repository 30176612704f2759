"""What stands at one spot of the disk, once whoever writes it has paused; and copies for the vault of what is read.

A file is read when it has settled (engine/pauses), a database at work through SQLite (store/snapshots). What cannot be told yet says so,
and when to look again.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import monotonic, time_ns

from p2psync.engine.ages import Ages
from p2psync.engine.attention import Attention
from p2psync.engine.ignore import halves_of
from p2psync.engine.pauses import Pauses
from p2psync.store import openfiles, space, sqlitefile
from p2psync.store.apart import Apart, Failed, Known, Torn
from p2psync.store.books import Books
from p2psync.store.chunking import Sink
from p2psync.store.faults import DiskFull
from p2psync.store.locations import Location
from p2psync.store.root import Folders, Root
from p2psync.store.scan import (
    FRESH_NS,
    Changing,
    Database,
    Elsewhere,
    Fresh,
    Later,
    Nothing,
    Read,
    Ready,
    Result,
    Unreadable,
    observe,
    observe_in,
)
from p2psync.store.snapshots import Snapshots
from p2psync.store.sources import VAULTED
from p2psync.store.spots import Looked, Spot
from p2psync.values.content import Chunk, File, Folder, Observed, Stamp
from p2psync.values.errors import MandateError, P2psyncError, UserError, parted
from p2psync.values.names import escaped

CHANGING_AGAIN = 0.25
"""Seconds until a file that could not be read as a whole is looked at again, at the soonest."""
NAMED_AFTER = 1.0
"""Seconds that a file is being written before somebody is looked for who does it: that costs milliseconds."""
OFTEN_TORN = 3
"""So often is a file read in vain before it is said that it does not pause."""
UNREADABLE_AGAIN = 30.0
"""Seconds until something that could not be read is tried again."""
_WHOLE_NS = 1_000_000_000
"""A time in whole seconds is likely to come from a disk that counts no others."""


class NotNoted(MandateError):
    """{why}"""


@contextmanager
def noting() -> Iterator[None]:
    """A disk of our own that is full or broken is no fault of what is looked at: nothing is concluded about that. Raises: NotNoted."""
    try:
        yield
    except UserError as e:
        raise NotNoted(why=e) from e


def why_and_do(fault: object) -> dict[str, object]:
    """What is wrong and what to do, of an error's message."""
    why, do = parted(str(fault))
    return {"why": why, "do": do}


class Reading:
    """Takes the chunks of one file as it is read: where they are, and the bytes of a file that the vault keeps."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.pieces: list[tuple[Chunk, bytes]] = []
        self.large = False
        """It is known to be too large for the vault."""

    def __call__(self, chunk: Chunk, data: memoryview) -> None:
        """Take one chunk."""
        self.chunks.append(chunk)
        if self.large or chunk.offset + chunk.size > VAULTED:
            self.pieces.clear()
        else:
            self.pieces.append((chunk, bytes(data)))

    def whole(self, keep: Sink) -> Sink:
        """Takes the chunks of a snapshot, all of which go to ``keep``: its bytes may stand in no file."""

        def take(chunk: Chunk, data: memoryview) -> None:
            self.chunks.append(chunk)
            keep(chunk, data)

        return take

    def clear(self) -> None:
        """Begin anew."""
        self.chunks.clear()
        self.pieces.clear()


class Seeing:
    """Sees the spots of one mandate, batch after batch; used by one thread at a time.

    ``logs``: the logs in which some of what a batch saw stands. ``uncopied``: something was seen of which the vault took no copy, for want
    of room, so that the file itself is the only one. ``apart``: where large files are read, if not here.
    """

    def __init__(self, books: Books) -> None:
        self._books = books
        self.uncopied = False
        self.apart: Apart | None = None
        self._torn = 0.0
        self.logs: set[tuple[str, ...]] = set()
        self._keep = books.vault.keeping()
        self._tight: bool | None = None
        self._pauses: Pauses[Spot] = Pauses()
        self._ages = Ages()
        self._writers: dict[Spot, str] = {}
        self._coarse: dict[Spot, tuple[Stamp, float]] = {}
        self._snapshots = Snapshots(books.state)

    def begin(self) -> None:
        """A batch begins, and nothing that one before it left behind counts."""
        self.logs = set()
        self._keep = self._books.vault.keeping()
        self._tight = None

    def see(
        self, folders: Folders, location: Location, spot: Spot, known: Observed | None, reading: Reading, looked: Looked
    ) -> Observed | Nothing | None:
        """What stands at a spot; None when it cannot be told yet, which is said in ``looked`` then, with when to look again.

        ``folders`` are those of the batch.
        """
        if (rest := self._pauses.rests(spot, monotonic())) > 0:
            looked.again[spot] = rest
            return None
        shown = "/".join((location.name.text, *spot.disk))
        seen = self._read(folders, location.parts(spot.disk), spot, known, reading)
        if reading.pieces:
            self._copy(reading.pieces)
        if isinstance(seen, Later):
            return None
        if isinstance(seen, Changing):
            looked.again[spot] = max(CHANGING_AGAIN, self._pauses.wait(spot, monotonic()))
            looked.attention[shown] = self._still_written(folders.root, location, spot)
            return None
        self._pauses.settled(spot)
        self._writers.pop(spot, None)
        if location.single and isinstance(seen, Observed) and isinstance(seen.state, Folder):
            seen = Unreadable(f"“{escaped(str(location.path))}” is a folder now, and what is attached is a file. Put the file back there.")
        if isinstance(seen, Unreadable):
            looked.attention[shown] = Attention("unreadable", self._books.now_ms(), why_and_do(seen.reason))
            looked.again[spot] = UNREADABLE_AGAIN
            return None
        return seen

    def _read(self, folders: Folders, parts: tuple[str, ...], spot: Spot, known: Observed | None, reading: Reading) -> Result:
        """What stands at a spot, once it has settled: of a database at work, what SQLite says that it holds."""
        now = time_ns()
        size = known.state.content.size if known and isinstance(known.state, File) else 0

        def ready(stamp: Stamp, is_written: bool) -> bool:
            reading.large = stamp.size > VAULTED
            age = self._ages.age(stamp.mtime_ns, time_ns(), monotonic())
            shrunk = stamp.size * 2 < size or not stamp.size
            if is_written and _counts_seconds(stamp):  # it may have been written to so much later
                age = max(age - FRESH_NS / 1e9, 0.0)
            return self._pauses.ready(spot, stamp, age, monotonic(), written=is_written, shrunk=shrunk)

        began, self._torn = monotonic(), 0.0
        elsewhere = self._elsewhere(folders.root, spot, parts, reading)
        seen = observe_in(folders, parts, known, now, reading, ready, elsewhere)
        if isinstance(seen, Database) or (seen is known and self._may_be_hot(folders, parts, known)):
            seen = self._read_database(folders, parts, spot, known, reading, ready)
        elif isinstance(seen, Observed) and seen is not known:
            seen = self._doubted(spot, seen)
        if isinstance(seen, Changing) and not seen.unread:
            self._pauses.torn(spot, max(monotonic() - began, self._torn), monotonic())
        return seen

    def _doubted(self, spot: Spot, seen: Observed) -> Observed:
        """What was read just now: ``Fresh`` as long as the disk may count whole steps of time by a clock of its own, as a server's does.
        Then only our own clock tells whether a step has gone by since this stamp was first met.
        """
        stamp = seen.stamp
        if stamp.kind != "file" or not _counts_seconds(stamp):
            return seen
        met, since = self._coarse.get(spot, (None, 0.0))
        if met != stamp:
            self._coarse[spot] = stamp, monotonic()
        elif monotonic() - since > FRESH_NS / 1e9:
            del self._coarse[spot]
            return seen
        return Fresh(stamp, seen.state)

    def _may_be_hot(self, folders: Folders, parts: tuple[str, ...], known: Observed) -> bool:
        """Whether a file that did not change may be a database that did, in its log."""
        if not isinstance(known.state, File):
            return False
        try:
            return sqlitefile.hot_half(folders(parts[:-1]), parts[-1]) is not None
        except (OSError, P2psyncError):
            return True

    def _read_database(
        self, folders: Folders, parts: tuple[str, ...], spot: Spot, known: Observed | None, reading: Reading, ready: Ready
    ) -> Result:
        reading.clear()
        seen = self._snapshots.observe(folders, parts, known, reading.whole(self._copy_one))
        if seen is None:
            reading.clear()
            elsewhere = self._elsewhere(folders.root, spot, parts, reading)
            plain = observe(folders.root, parts, known, time_ns(), reading, ready=ready, elsewhere=elsewhere)
            return self._doubted(spot, plain) if isinstance(plain, Observed) and plain is not known else plain
        if isinstance(seen, Observed) and seen is not known:  # it is partly in the log, for which hardly any program waits
            self.logs.add((*parts[:-1], halves_of(parts[-1])[0]))
        return seen

    def _elsewhere(self, root: Root, spot: Spot, parts: tuple[str, ...], reading: Reading) -> Elsewhere:
        """Large files are read apart, if somebody does that."""

        def elsewhere(stamp: Stamp) -> Read | Later | Changing | Unreadable | None:
            if self.apart is None or stamp.size <= VAULTED:
                return None
            match self.apart.found(spot, root, parts, stamp):
                case Known(_, at_ns, content, listing):
                    reading.chunks = list(listing)
                    return Read(content, listing, at_ns)
                case Torn(took):
                    self._torn = took
                    return Changing()
                case Failed(reason):
                    return Unreadable(reason)
            return Later()

        return elsewhere

    def _still_written(self, root: Root, location: Location, spot: Spot) -> Attention:
        """Why a file that somebody writes is not sent."""
        if self._pauses.waited(spot, monotonic()) < NAMED_AFTER:
            return Attention("still-written", self._books.now_ms(), {"by": ""})
        if spot not in self._writers:
            try:
                by = openfiles.is_open(root, location.parts(spot.disk))
            except (OSError, P2psyncError):
                by = None
            self._writers[spot] = f" by {by.who}" if by and by.who else ""
        code = "never-pauses" if self._pauses.times_torn(spot) >= OFTEN_TORN else "still-written"
        return Attention(code, self._books.now_ms(), {"by": self._writers[spot]})

    # ---- copies for the vault

    def _copy_one(self, chunk: Chunk, data: memoryview) -> None:
        self._copy([(chunk, bytes(data))])

    def _copy(self, pieces: Iterable[tuple[Chunk, bytes]]) -> None:
        """Have the vault take these; what a person saved is recorded even without."""
        with self._keeping():
            if self._tight is None:
                self._tight = space.of(self._books.state).tight
            if self._tight:
                self.uncopied = True
                return
            for piece in pieces:
                self._keep(*piece)

    def keep_copies(self) -> None:
        """Returns when what the vault took in this batch is durable. Raises: NotNoted."""
        with self._keeping():
            self._keep.commit()

    @contextmanager
    def _keeping(self) -> Iterator[None]:
        with noting():
            try:
                yield
            except DiskFull:
                self._keep.discard()
                self.uncopied = True


def _counts_seconds(stamp: Stamp) -> bool:
    """Whether the disk that a stamp is of may know no finer times."""
    return not (stamp.mtime_ns % _WHOLE_NS or stamp.ctime_ns % _WHOLE_NS)
