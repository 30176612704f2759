"""Real programs at work on shared files: what of their work reaches the other machine, and when.

Two real daemons on the loopback interface. Whatever appears at Bruno's is kept and judged: only what Anna's program had saved as a whole
may. The short trials run always; with P2PSYNC_PROGRAMS=S each lasts S seconds, and LibreOffice and an hour of office work in a log take
part (sixty times as fast with 60). Figures are printed (``pytest -s``).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.story.desks import Desk, until

SECONDS = float(os.environ.get("P2PSYNC_PROGRAMS", "0"))
SHORT_S = 3.0
LASTS_S = SECONDS or SHORT_S
BOOKS = "Dupont SA"
AT_ONCE_S = 1.0
"""So soon after the close goes in what waited for it."""


class Seen:
    """Every content that stood at a path, one after the other, each with the time when it was first seen."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.contents: list[tuple[float, bytes]] = []
        self.names: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        last: tuple[int, ...] = ()
        while not self._stop.wait(0.003):
            self.names |= {name for name in os.listdir(self.path.parent) if not name.startswith(".p2psync")}
            with contextlib.suppress(FileNotFoundError):
                with self.path.open("rb") as file:
                    status = os.fstat(file.fileno())
                    now = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
                    if now == last:
                        continue
                    content = file.read()
                last = now
                if not self.contents or self.contents[-1][1] != content:
                    self.contents.append((time.monotonic(), content))

    def __enter__(self) -> Seen:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def last(self) -> bytes | None:
        return self.contents[-1][1] if self.contents else None

    def has(self, content: bytes) -> None:
        until("the last save is at the other machine", lambda: self.last == content, 30.0)


class Office:
    """Anna's and Bruno's machines, and the folder that both work in."""

    def __init__(self, top: Path) -> None:
        self.anna, self.bruno = Desk("Anna", top / "anna"), Desk("Bruno", top / "bruno")
        self.here, self.there = self.anna.place / "books", self.bruno.place / "theirs" / "books"
        self.here.mkdir(parents=True)
        self.top = top

    def agreed(self) -> None:
        for desk in (self.anna, self.bruno):
            desk.does("wait", BOOKS, "--timeout", "30")

    def reason(self, desk: Desk, name: str) -> str:
        return str(desk.attention(BOOKS).get(f"books/{name}", {}).get("reason", ""))


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    office = Office(tmp_path_factory.mktemp("programs"))
    anna, bruno = office.anna, office.bruno
    try:
        anna.start().answers()
        bruno.start().answers()
        (office.here / "readme.txt").write_text("books")
        anna.does("create", BOOKS, office.here, "--as", "Anna")
        anna.does("share", BOOKS)
        anna.does("invite", BOOKS, "--for", "Bruno", "-o", office.top / "bruno.crsync")
        bruno.does("subscribe", office.top / "bruno.crsync", "--folder", bruno.place / "theirs")
        bruno.until("the folder is there", (office.there / "readme.txt").exists)
        office.agreed()
        yield office
    finally:
        anna.stop()
        bruno.stop()


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


@contextmanager
def program(code: str, *words: object) -> Iterator[subprocess.Popen[str]]:
    """A program in Python that ends when its input does."""
    with subprocess.Popen(
        [sys.executable, "-S", "-c", code, *map(str, words)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def tell(what: str, **figures: object) -> None:
    print(f"\n  {what}: " + ", ".join(f"{name.replace('_', ' ')} {figure}" for name, figure in figures.items()))


def gaps(seen: Seen) -> str:
    times = [at for at, _ in seen.contents]
    return f"{max((b - a for a, b in itertools.pairwise(times)), default=0.0):.1f} s"


# ---- SQLite

CLERK = """
import itertools, sqlite3, sys, time
path, mode, lasts, burst, pause = sys.argv[1], sys.argv[2], *map(float, sys.argv[3:])
books = sqlite3.connect(path, isolation_level=None, timeout=0.0)
books.execute("PRAGMA journal_mode = " + mode)
tables = "CREATE TABLE entries (id INTEGER PRIMARY KEY, text); CREATE TABLE total (rows)"
books.executescript("BEGIN; " + tables + "; INSERT INTO total VALUES (0); COMMIT")
began, slowest, refused = time.monotonic(), 0.0, 0
while time.monotonic() < began + lasts:
    for _ in range(40):
        if time.monotonic() % (burst + pause) > burst:
            break
        before = time.monotonic()
        try:
            books.execute("BEGIN IMMEDIATE")
            books.executemany("INSERT INTO entries (text) VALUES (?)", [("x" * 200,)] * 5)
            books.execute("UPDATE total SET rows = rows + 5")
            books.execute("COMMIT")
        except sqlite3.OperationalError:
            refused += 1
            while books.in_transaction:
                try:
                    books.execute("COMMIT")
                except sqlite3.OperationalError:
                    time.sleep(0.001)
        slowest = max(slowest, time.monotonic() - before)
        time.sleep(0.005)
    time.sleep(0.01)
print(books.execute("SELECT rows FROM total").fetchone()[0], refused, round(slowest * 1000), flush=True)
sys.stdin.read()
"""


def counted(content: bytes, room: Path) -> int:
    """The rows of a database, which is checked, and says itself how many it has to have."""
    path = room / "version"
    path.write_bytes(content)
    try:
        with closing(sqlite3.connect(path)) as books:
            assert books.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            if not books.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                return 0
            rows, total = books.execute("SELECT count(*), (SELECT rows FROM total) FROM entries").fetchone()
            assert rows == total
            return int(rows)
    finally:
        for left in room.glob("version*"):
            left.unlink()


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_every_version_of_a_database_that_is_written_to_all_the_time_is_whole(office: Office, tmp_path: Path, mode: str) -> None:
    name = f"compta-{mode}.db"
    pause = 0.0 if SECONDS else 1.0
    with Seen(office.there / name) as seen, program(CLERK, office.here / name, mode, LASTS_S, 0.4, pause) as clerk:
        assert clerk.stdout is not None
        rows, refused, slowest = map(int, clerk.stdout.readline().split())
        until(
            "every row is at Bruno's",
            lambda: seen.last is not None and len(seen.last) > 0 and last_rows(seen, tmp_path) == rows,
            12.0,
            lambda: str(
                [
                    office.anna.attention(BOOKS),
                    office.bruno.attention(BOOKS),
                    rows,
                    [counted(c, tmp_path) for _, c in seen.contents if c],
                    os.listdir(office.there),
                    office.bruno.log()[-2000:],
                    office.anna.log()[-2000:],
                ]
            ),
        )
        known = len(seen.contents)
        assert clerk.stdin is not None
        clerk.stdin.close()
        clerk.wait()
        until("the log is gone", lambda: not (office.here / f"{name}-wal").exists())
        office.agreed()
    versions = [counted(content, tmp_path) for _, content in seen.contents if content]
    tell(f"sqlite {mode}", rows=rows, versions=len(versions), longest_gap=gaps(seen), refused_to_the_program=refused, slowest_ms=slowest)
    assert versions == sorted(versions)
    assert versions[-1] == rows
    assert len(versions) > SECONDS / 20
    assert len(seen.contents) == known, "closing it was no version"
    assert refused == 0 or mode == "DELETE"
    assert not [n for n in seen.names if n.startswith(name) and n != name]
    assert (office.here / name).read_bytes() == (office.there / name).read_bytes()


def last_rows(seen: Seen, room: Path) -> int:
    assert seen.last is not None
    return counted(seen.last, room)


# ---- editors


@needs("vim")
def test_vim(office: Office) -> None:
    book, theirs = office.here / "vim.txt", office.there / "vim.txt"
    book.write_text("line 0\n" * 20_000)
    with Seen(theirs) as seen:
        seen.has(book.read_bytes())
        saved = {book.read_bytes()}
        for number in range(1, 4):
            for options in ("set backupcopy=no", "set backupcopy=yes backup"):
                command = [
                    "vim",
                    "-es",
                    "-u",
                    "NONE",
                    "-c",
                    options,
                    "-c",
                    f"%s/line .*/line {number} {options[-4:]}/",
                    "-c",
                    "wq",
                    str(book),
                ]
                subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=30)
                saved.add(book.read_bytes())
        seen.has(book.read_bytes())
        office.agreed()
    tell("vim", saves=6, versions=len(seen.contents) - 1)
    assert {content for _, content in seen.contents} <= saved
    assert {name for name in seen.names if "vim" in name or "4913" in name} <= {"vim.txt", "vim.txt~"}  # the second is asked for


@needs("ed")
def test_an_editor_that_writes_in_place(office: Office) -> None:
    book, theirs = office.here / "ed.txt", office.there / "ed.txt"
    book.write_text("line 0\n" * 20_000)
    with Seen(theirs) as seen:
        seen.has(book.read_bytes())
        saved, inode = {book.read_bytes()}, book.stat().st_ino
        for number in range(1, 7):
            subprocess.run(["ed", "-s", str(book)], input=f",s/line .*/line {number}/\nw\nq\n", text=True, check=True, timeout=30)
            saved.add(book.read_bytes())
        assert book.stat().st_ino == inode
        seen.has(book.read_bytes())
    tell("ed", saves=6, versions=len(seen.contents) - 1)
    assert {content for _, content in seen.contents} <= saved


KEPT_OPEN = """
import os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR)
for number in range(1, int(sys.argv[2]) + 1):
    os.ftruncate(fd, 0)
    os.pwrite(fd, b"begin %d\\n" % number, 0)
    time.sleep(0.3)
    os.pwrite(fd, b"x" * 300_000, 1000)
    time.sleep(0.3)
    os.pwrite(fd, b"end %d\\n" % number, 400_000)
    time.sleep(1.0)
print("saved", flush=True)
sys.stdin.read()
"""


def test_a_program_that_keeps_its_file_open_gets_its_saves_out_when_it_pauses(office: Office) -> None:
    """Its save takes 0.6 s, in three parts; of each only the whole is seen. It never closes the file."""
    book, theirs = office.here / "kept.bin", office.there / "kept.bin"
    book.write_bytes(b"begin 0" + bytes(300_000) + b"end 0\n")
    saves = max(2, int(LASTS_S / 1.6))
    with Seen(theirs) as seen:
        seen.has(book.read_bytes())
        with program(KEPT_OPEN, book, saves) as clerk:
            assert clerk.stdout is not None
            assert clerk.stdout.readline() == "saved\n"
            seen.has(book.read_bytes())
    tell("kept open", saves=saves, versions=len(seen.contents) - 1)
    for _, content in seen.contents:
        number = content[6:8].strip(b"\n\0")
        assert content.endswith(b"end " + number + b"\n")
    assert len(seen.contents) - 1 == saves


def test_a_file_that_is_emptied_first_and_written_afterwards(office: Office) -> None:
    """In a shell: ``: > FILE; slow-command >> FILE``, with the file closed in between."""
    book, theirs = office.here / "twice.txt", office.there / "twice.txt"
    book.write_text("save 0\n" * 1000)
    with Seen(theirs) as seen:
        seen.has(book.read_bytes())
        for number in range(1, 6):
            subprocess.run(["sh", "-c", f": > {book}; sleep 0.1; yes 'save {number}' | head -n 1000 >> {book}"], check=True)
            seen.has(book.read_bytes())
    tell("truncated first", saves=5, versions=len(seen.contents) - 1)
    assert [content for _, content in seen.contents] == [f"save {number}\n".encode() * 1000 for number in range(6)]


# ---- an hour of office work

APPEND = """
import random, sys, time
path, how, lasts = sys.argv[1], sys.argv[2], float(sys.argv[3])
chance, began, number = random.Random(1), time.monotonic(), 0
kept = open(path, "ab", buffering=0) if how == "kept" else None
while time.monotonic() < began + lasts:
    for _ in range(chance.randint(1, 12)):  # a few entries in a row, then the telephone
        number += 1
        file = kept or open(path, "ab", buffering=0)
        file.write(b"%d %s.\\n" % (number, b"x" * chance.randint(20, 2000)))
        if kept is None:
            file.close()
        time.sleep(chance.random() * 0.1)
    time.sleep(chance.choice((0.05, 0.3, 1.0)))
print(number, flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(not SECONDS, reason="an hour takes its time: set P2PSYNC_PROGRAMS")
@pytest.mark.parametrize("how", ["kept", "closed"])
def test_an_hour_of_office_work_in_a_log(office: Office, how: str) -> None:
    book, theirs = office.here / f"log-{how}.txt", office.there / f"log-{how}.txt"
    with Seen(theirs) as seen, program(APPEND, book, how, LASTS_S) as clerk:
        assert clerk.stdout is not None
        number = int(clerk.stdout.readline())
        seen.has(book.read_bytes())
    whole = book.read_bytes()
    tell(f"appended, {how}", entries=number, versions=len(seen.contents), longest_gap=gaps(seen))
    for _, content in seen.contents:
        assert whole.startswith(content)
        assert not content or content.endswith(b".\n")


# ---- what waits

READER = "import sys; file = open(sys.argv[1], sys.argv[2]); print('open', flush=True); sys.stdin.read()"


@pytest.mark.parametrize("how", ["r", "r+"])
def test_a_version_that_waited_goes_in_within_a_second_of_the_close(office: Office, how: str) -> None:
    name = f"waiting-{how}.txt"
    book, theirs = office.here / name, office.there / name
    book.write_text("save 0")
    until("it is there", theirs.exists)
    took = []
    for number in range(1, 4):
        with program(READER, theirs, how) as reader:
            assert reader.stdout is not None and reader.stdin is not None
            reader.stdout.readline()
            book.write_text(f"save {number}")
            office.bruno.until("it waits", lambda: "the file is open" in office.reason(office.bruno, name))
            assert f"(process {reader.pid} of " in office.reason(office.bruno, name)
            assert theirs.read_text() == f"save {number - 1}"
            reader.stdin.close()
            reader.wait()
            closed = time.monotonic()
            until("the version is in its place", lambda number=number: theirs.read_text() == f"save {number}")  # type: ignore[misc]
            took.append(time.monotonic() - closed)
        office.bruno.until("nothing is said of it any more", lambda: not office.reason(office.bruno, name))
    tell(f"waited for a close ({how})", seconds=" ".join(f"{one:.2f}" for one in took))
    assert max(took) < AT_ONCE_S


def test_a_lock_file_holds_a_version_up_and_says_what_to_do(office: Office) -> None:
    book, theirs = office.here / "Bilan.ods", office.there / "Bilan.ods"
    book.write_text("save 0")
    until("it is there", theirs.exists)
    lock = office.there / ".~lock.Bilan.ods#"
    lock.write_text(",anna,elsewhere,24.11.2026 09:12,file:///home/anna/.config/libreoffice/4;")
    book.write_text("save 1")
    office.bruno.until("it waits", lambda: ".~lock.Bilan.ods#" in office.reason(office.bruno, "Bilan.ods"))
    assert "LibreOffice by anna on elsewhere" in office.reason(office.bruno, "Bilan.ods")
    lock.unlink()
    removed = time.monotonic()
    until("the version is in its place", lambda: theirs.read_text() == "save 1")
    tell("waited for a lock file", seconds=f"{time.monotonic() - removed:.2f}")
    assert time.monotonic() - removed < AT_ONCE_S


# ---- LibreOffice

CALC = """
import os, sys, time
import uno
from com.sun.star.beans import PropertyValue
path, saves = "file://" + sys.argv[1], int(sys.argv[2])
resolver = uno.getComponentContext()
resolver = resolver.ServiceManager.createInstanceWithContext("com.sun.star.bridge.UnoUrlResolver", resolver)
for _ in range(600):
    try:
        context = resolver.resolve("uno:pipe,name=" + sys.argv[3] + ";urp;StarOffice.ComponentContext")
        break
    except Exception:
        time.sleep(0.1)
desktop = context.ServiceManager.createInstanceWithContext("com.sun.star.frame.Desktop", context)
hidden = PropertyValue("Hidden", 0, True, 0)
document = desktop.loadComponentFromURL(path if os.path.exists(sys.argv[1]) else "private:factory/scalc", "_blank", 0, (hidden,))
print("open", flush=True)
for number in range(1, saves + 1):
    sheet = document.Sheets.getByIndex(0)
    for row in range(200):
        sheet.getCellByPosition(0, row).setString("save %d" % number)
    document.store() if document.hasLocation() else document.storeAsURL(path, ())
    print("saved", flush=True)
    time.sleep(1.0)
sys.stdin.readline()
document.close(True)
print("closed", flush=True)
sys.stdin.readline()
try:
    desktop.terminate()
except Exception:
    pass
"""


@contextmanager
def libreoffice(top: Path, book: Path, saves: int) -> Iterator[subprocess.Popen[str]]:
    """A spreadsheet that a LibreOffice without a window has open, and saves so many times."""
    pipe = f"p2psync{os.getpid()}"
    profile = f"-env:UserInstallation=file://{top / 'profile'}"
    office = ["soffice", profile, "--headless", "--norestore", "--nologo", f"--accept=pipe,name={pipe};urp;"]
    with subprocess.Popen(office, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        words = ["/usr/bin/python3", "-c", CALC, str(book), str(saves), pipe]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as clerk:
            try:
                yield clerk
                clerk.communicate("\n\n", timeout=30)
                server.wait(30)
            finally:
                clerk.kill()
                server.terminate()


@needs("soffice")
@pytest.mark.skipif(not SECONDS, reason="LibreOffice takes long to start: set P2PSYNC_PROGRAMS")
def test_libreoffice(office: Office, tmp_path: Path) -> None:
    book, theirs = office.here / "Budget.ods", office.there / "Budget.ods"
    saved: set[bytes] = set()
    with Seen(theirs) as seen, libreoffice(tmp_path, book, 5) as clerk:
        assert clerk.stdout is not None
        assert clerk.stdout.readline() == "open\n"
        for _ in range(5):
            assert clerk.stdout.readline() == "saved\n"
            saved.add(book.read_bytes())
        seen.has(book.read_bytes())
        assert (office.here / ".~lock.Budget.ods#").exists()
        theirs.write_bytes(b"Bruno's")  # it waits while Anna has hers open
        office.anna.until("it waits", lambda: "the file is open" in office.reason(office.anna, "Budget.ods"))
        reason = office.reason(office.anna, "Budget.ods")
        assert book.read_bytes() in saved
        assert clerk.stdin is not None
        clerk.stdin.write("\n")
        clerk.stdin.flush()
        assert clerk.stdout.readline() == "closed\n"
        closed = time.monotonic()
        until("Bruno's is in its place", lambda: book.read_bytes() == b"Bruno's")
        took = time.monotonic() - closed
    tell("libreoffice", saves=5, versions=len(seen.contents) - 1, waited_s=f"{took:.2f}", said=reason)
    assert {content for _, content in seen.contents} - {b"Bruno's"} <= saved
    assert not [name for name in seen.names if "lock" in name or name.startswith("lu")]
    assert took < AT_ONCE_S
