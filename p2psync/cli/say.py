"""What is printed: sentences, tables and JSON, escaped, and fitted to the width of the terminal.

Nothing that comes from a file name, another machine or the daemon reaches the terminal unescaped. What a person may want to copy
(a name, a path, a command) is never cut or broken.
"""

import contextlib
import json
import os
import shlex
import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from p2psync.values.errors import UserError
from p2psync.values.names import escaped

_WIDEST = 100
_NARROWEST = 40
_FIRST = 34
"""Columns that the first cell of a table gets at most; a longer one stands on a line of its own."""
_NARROW_FIRST = 8
"""Columns left free below the first cells when all of them stand on lines of their own."""
_MIDDLE = 24
"""Columns that a cell in the middle gets at most; a longer one is cut."""
_GAP = "  "


class OutputLost(UserError):
    """What there was to say could not be written: {why}. Make room, or have it written elsewhere."""


def say(lines: str | Iterable[str] = "") -> None:
    """Print, one line after the other.

    Raises:
        OutputLost: the disk behind the output is full, for example.
        BrokenPipeError: whoever read the output has had enough.
    """
    for line in [lines] if isinstance(lines, str) else lines:
        with _output():
            print(clean(line))


def say_json(value: Any, *, compact: bool = False) -> None:
    """Print ``value`` as JSON, for scripts; pure ASCII, so that no terminal is surprised. Raises what ``say`` raises."""
    with _output():
        print(json.dumps(value) if compact else json.dumps(value, indent=2))


def all_said() -> None:
    """Have everything printed reach whoever reads it. Raises what ``say`` raises."""
    with _output():
        sys.stdout.flush()


@contextlib.contextmanager
def _output() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as e:
        raise OutputLost(why=(e.strerror or str(e)).lower()) from None


def complain(sentence: str) -> None:
    """Say on the error output what went wrong."""
    print(f"p2psync: {clean(sentence)}", file=sys.stderr)


def clean(text: str) -> str:
    """``text`` with everything escaped that a terminal would act on or not show."""
    return "\n".join(escaped(line) for line in text.split("\n"))


def quoted(name: object) -> str:
    """A name inside a sentence."""
    return f"“{name}”"


def command(*words: str, then: str = "") -> str:
    """A command of ours to copy into a shell; ``then`` is what a person puts in, and follows as it is."""
    return " ".join(["p2psync", *map(shlex.quote, words), then]).rstrip()


def columns() -> int:
    """The columns to fill: those of the terminal, within reason; 80 where there is none."""
    asked = os.environ.get("COLUMNS", "")
    try:
        wide = int(asked) if asked.isdecimal() else os.get_terminal_size(1).columns
    except OSError:
        wide = 0
    return max(_NARROWEST, min(wide or 80, _WIDEST))


def paragraph(text: str, indent: str = "", first: str | None = None) -> list[str]:
    """``text`` broken into lines, the first beginning with ``first``, the others with ``indent``."""
    begin = indent if first is None else first
    lines = textwrap.wrap(
        clean(text), columns(), initial_indent=begin, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return lines or [begin.rstrip()]


def hint(text: str, indent: str = "", then: str = "") -> list[str]:
    """The next action, marked with an arrow; the command ``then`` follows it unbroken."""
    lines = paragraph(text, indent + "  ", f"{indent}→ ")
    if then and width(lines[-1]) + 1 + width(then) <= columns():
        lines[-1] += f" {then}"
    elif then:
        lines.append(f"{indent}    {then}")
    return lines


def table(rows: Sequence[Sequence[str]], indent: str = "", *, whole: bool = False) -> list[str]:
    """Rows of cells in columns: the first is never cut, those in the middle are, the last is wrapped, or with ``whole`` left as it is."""
    return [line for block in blocks(rows, indent, whole=whole) for line in block]


def blocks(rows: Sequence[Sequence[str]], indent: str = "", *, whole: bool = False) -> list[list[str]]:
    """The lines of a table, row by row."""
    cells = [[escaped(cell) for cell in row] for row in rows]
    middles = [[_cut(cell, _MIDDLE) for cell in row[1:-1]] for row in cells]
    first = max((wide for row in cells if (wide := width(row[0])) <= _FIRST), default=_NARROW_FIRST)
    widths = [max(map(width, column)) for column in zip(*middles, strict=True)]
    return [_block(row, middle, indent, first, widths, whole) for row, middle in zip(cells, middles, strict=True)]


def _block(row: Sequence[str], middle: Sequence[str], indent: str, first: int, widths: Sequence[int], whole: bool) -> list[str]:
    alone = width(row[0]) > first
    start = indent + _pad("" if alone else row[0], first) + _GAP
    start += "".join(_pad(cell, wide) + _GAP for cell, wide in zip(middle, widths, strict=True))
    rest = [start + row[-1]] if whole else paragraph(row[-1], " " * width(start), start)
    return [line.rstrip() for line in ([indent + row[0]] if alone else []) + rest]


def width(text: str) -> int:
    """The columns that ``text`` takes on a terminal."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _pad(text: str, wide: int) -> str:
    return text + " " * (wide - width(text))


def _cut(text: str, wide: int) -> str:
    if width(text) <= wide:
        return text
    while width(text) >= wide:
        text = text[:-1]
    return text + "…"
