"""Nothing halts that need not: ordinary days in an office, and how many of them make p2psync stop and ask.

Product.md lets more than 10 files and 20 % deleted at once wait for a person, and a folder that was emptied. Run with -s for the table.
"""

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from p2psync.store import vanishing
from p2psync.values.names import RelPath
from tests.lan.desks import Desk, fast_place

Day: TypeAlias = Callable[[Path, Callable[[], None]], None]
"""What happens in a folder; the function given with it is a moment at which the machine looks, as it may at any."""

DAYS: list[tuple[str, bool, Day]] = []
"""Each day, whether it must ask, and what happens."""


def day(what: str, *, asks: bool = False) -> Callable[[Day], Day]:
    def note(happens: Day) -> Day:
        DAYS.append((what, asks, happens))
        return happens

    return note


def fill(folder: Path) -> None:
    """100 files: 48 receipts of a year, 20 in the trash, 20 loose ones and 12 in a small folder."""
    for n in range(48):
        put(folder / "2025" / f"{n:03}.pdf", f"receipt {n}")
    for n in range(20):
        put(folder / "trash" / f"{n}.tmp", f"trash {n}")
    for n in range(20):
        put(folder / f"{n}.xlsx", f"sheet {n}")
    for n in range(12):
        put(folder / "small" / f"{n}.txt", f"small {n}")


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def some(folder: Path, pattern: str, count: int = 1000) -> list[Path]:
    return sorted(folder.glob(pattern))[:count]


# ---- days that need nobody


@day("ten receipts moved to another folder")
def _(folder: Path, looks: Callable[[], None]) -> None:
    for path in some(folder, "2025/*", 10):
        path.rename(folder / "small" / path.name)


@day("a folder with half of the files renamed")
def _(folder: Path, looks: Callable[[], None]) -> None:
    (folder / "2025").rename(folder / "Exercice 2025")


@day("a folder with half of the files moved into another")
def _(folder: Path, looks: Callable[[], None]) -> None:
    (folder / "archives").mkdir()
    (folder / "2025").rename(folder / "archives" / "2025")


@day("a folder renamed by case alone")
def _(folder: Path, looks: Callable[[], None]) -> None:
    (folder / "small").rename(folder / "Small")


@day("two folders change their names")
def _(folder: Path, looks: Callable[[], None]) -> None:
    (folder / "2025").rename(folder / "x")
    (folder / "trash").rename(folder / "2025")
    (folder / "x").rename(folder / "trash")


@day("receipts sorted by month, one by one")
def _(folder: Path, looks: Callable[[], None]) -> None:
    for n, path in enumerate(some(folder, "2025/*")):
        (folder / "2025" / f"month {n % 12}").mkdir(exist_ok=True)
        path.rename(folder / "2025" / f"month {n % 12}" / path.name)
        if n % 20 == 0:
            looks()


@day("all renamed by a scanner program")
def _(folder: Path, looks: Callable[[], None]) -> None:
    for path in [*some(folder, "2025/*"), *some(folder, "*.xlsx")]:
        path.rename(path.with_name(f"scan 2026-11-24 {path.name}"))


@day("9 of 12 files of a folder deleted")
def _(folder: Path, looks: Callable[[], None]) -> None:
    for path in some(folder, "small/*", 9):
        path.unlink()


@day("8 of 100 deleted")
def _(folder: Path, looks: Callable[[], None]) -> None:
    for path in some(folder, "2025/*", 8):
        path.unlink()


@day("the small folder deleted with all that is in it")
def _(folder: Path, looks: Callable[[], None]) -> None:
    shutil.rmtree(folder / "small")


@day("the trash emptied, 20 of 100")
def _(folder: Path, looks: Callable[[], None]) -> None:
    for path in some(folder, "trash/*"):
        path.unlink()


@day("15 of a year's receipts archived outside")
def _(folder: Path, looks: Callable[[], None]) -> None:
    for path in some(folder, "2025/*", 15):
        path.rename(folder.parent / path.name)


@day("48 copies of what is elsewhere made and deleted")
def _(folder: Path, looks: Callable[[], None]) -> None:
    shutil.copytree(folder / "2025", folder / "copy")
    looks()
    shutil.rmtree(folder / "copy")


@day("empty folders deleted")
def _(folder: Path, looks: Callable[[], None]) -> None:
    for n in range(30):
        (folder / f"empty {n}").mkdir()
    looks()
    for n in range(30):
        (folder / f"empty {n}").rmdir()


@day("40 files written anew as git does")
def _(folder: Path, looks: Callable[[], None]) -> None:
    for path in some(folder, "2025/*", 40):
        path.unlink()
        put(path, f"{path.name} of the other branch")


@day("another branch and back")
def _(folder: Path, looks: Callable[[], None]) -> None:
    before = {path: path.read_text() for path in some(folder, "2025/*", 40)}
    for path in before:
        put(path, f"{path.name} of a branch")
    for path in some(folder, "2025/*")[40:]:
        path.unlink()
    looks()
    for path, text in before.items():
        path.unlink()
        put(path, text)


@day("an archive unpacked over the files, with the dates in it")
def _(folder: Path, looks: Callable[[], None]) -> None:
    with zipfile.ZipFile(folder.parent / "a.zip", "w") as archive:
        for path in some(folder, "2025/*", 40):
            archive.writestr(f"2025/{path.name}", f"{path.name} as the bank has it")
    with zipfile.ZipFile(folder.parent / "a.zip") as archive:
        archive.extractall(folder)
    for path in some(folder, "2025/*", 40):
        os.utime(path, (1_500_000_000, 1_500_000_000))


@day("the same files unpacked again, with other dates")
def _(folder: Path, looks: Callable[[], None]) -> None:
    for path in some(folder, "2025/*"):
        os.utime(path, (1_400_000_000, 1_400_000_000))


@day("Excel saves 15 files: temporary name, old one aside, new one in place, old one gone")
def _(folder: Path, looks: Callable[[], None]) -> None:
    for n, path in enumerate(some(folder, "*.xlsx", 15)):
        put(folder / f"A1B2C3{n:02}", f"{path.name}, saved")
        path.rename(folder / f"D4E5F6{n:02}.tmp")
        if n % 10 == 0:
            looks()
        (folder / f"A1B2C3{n:02}").rename(path)
        (folder / f"D4E5F6{n:02}.tmp").unlink()


@day("LibreOffice opens and saves 15 files, with its locks")
def _(folder: Path, looks: Callable[[], None]) -> None:
    for n, path in enumerate(some(folder, "*.xlsx", 15)):
        lock, new = folder / f".~lock.{path.name}#", folder / f"lu{n:04}.tmp"
        put(lock, "Anna")
        put(new, f"{path.name}, by LibreOffice")
        if n % 10 == 0:
            looks()
        new.replace(path)
        lock.unlink()


@day("save as, 15 times, and the drafts deleted")
def _(folder: Path, looks: Callable[[], None]) -> None:
    for n in range(15):
        put(folder / f"Bilan v{n}.docx", f"draft {n}")
        looks()
    for n in range(14):
        (folder / f"Bilan v{n}.docx").unlink()


@day("an accounting program that makes 15 files and takes them away")
def _(folder: Path, looks: Callable[[], None]) -> None:
    for n in range(15):
        put(folder / f"{n}.lck", str(n))
        looks()
        (folder / f"{n}.lck").unlink()
        looks()


@day("8 deleted by mistake and taken back from the trash")
def _(folder: Path, looks: Callable[[], None]) -> None:
    for path in some(folder, "2025/*", 8):
        path.rename(folder.parent / path.name)
    looks()
    for path in some(folder.parent, "0*.pdf", 8):
        path.rename(folder / "2025" / path.name)


@day("5 files fetched from yesterday's backup, with their dates")
def _(folder: Path, looks: Callable[[], None]) -> None:
    kept = {path: path.stat().st_mtime for path in some(folder, "2025/*", 5)}
    texts = {path: path.read_text() for path in kept}
    for path in kept:
        put(path, f"{path.name}, spoilt")
    looks()
    for path, when in kept.items():
        put(path, texts[path])
        os.utime(path, (when - 100, when - 100))


@day("20 files merged into one")
def _(folder: Path, looks: Callable[[], None]) -> None:
    put(folder / "all.txt", "".join(path.read_text() for path in some(folder, "2025/*", 20)))
    for path in some(folder, "2025/*", 20):
        path.unlink()


# ---- days on which product.md asks


@day("half of the receipts deleted", asks=True)
def _(folder: Path, looks: Callable[[], None]) -> None:
    for path in some(folder, "2025/*", 24):
        path.unlink()


@day("the whole year archived outside", asks=True)
def _(folder: Path, looks: Callable[[], None]) -> None:
    shutil.move(folder / "2025", folder.parent / "2025")


@day("30 files renamed and rewritten in one go", asks=True)
def _(folder: Path, looks: Callable[[], None]) -> None:
    for path in some(folder, "2025/*", 30):
        put(path.with_suffix(".encrypted"), f"{path.name} x")
        path.unlink()


@day("the folder emptied", asks=True)
def _(folder: Path, looks: Callable[[], None]) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@day("last week's backup put back over everything", asks=True)
def _(folder: Path, looks: Callable[[], None]) -> None:
    shutil.copytree(folder, folder.parent / "backup")
    for path in some(folder, "2025/*", 40):
        put(path, f"{path.name}, this week's")
    looks()
    shutil.copytree(folder.parent / "backup", folder, dirs_exist_ok=True)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that moves when a test says so, and by more than it takes to believe that something is gone at every glance."""
    now = [0.0]

    def glance() -> float:
        now[0] += 0.001
        return now[0]

    monkeypatch.setattr(vanishing, "monotonic", glance)
    return now


@pytest.mark.parametrize(
    "off", [False, *([True] if os.environ.get("P2PSYNC_LONG") else [])], ids=lambda off: "seen at a start" if off else "seen"
)
def test_how_many_days_ask(clock: list[float], off: bool) -> None:
    asked: list[tuple[str, bool, bool]] = []
    for what, asks, happens in DAYS:
        with fast_place() as place:
            anna = Desk(place, "Anna").found()
            folder = place / "files" / "dossier"
            fill(folder)
            anna.attach(folder)
            clock[0] += 10 * vanishing.TOGETHER

            def looks(anna: Desk = anna) -> None:
                anna.settle(patience=0.0)
                clock[0] += 2 * vanishing.GONE_FOR

            happens(folder, looks)
            if off:
                anna.restart()
            halted = False
            for _ in range(2 if off else 3):
                looks()
                halted = halted or anna.books.locations()[RelPath("dossier")].halted is not None
            asked.append((what, asks, halted))
            anna.arrivals.close()
            anna.books.close()
    print("", *(f"{'asks ' if halted else '  -  '} {what}" for what, _, halted in asked), sep="\n")
    false = [what for what, asks, halted in asked if halted and not asks]
    missed = [what for what, asks, halted in asked if asks and not halted]
    print(f"{len(asked)} days, {sum(halted for *_, halted in asked)} ask, {len(false)} of them needlessly; {len(missed)} should and do not")
    assert (len(asked), false, missed) == (len(DAYS), [], [])
