"""Sizes, times, tables and sentences, as a person sees them."""

from __future__ import annotations

import argparse
import time

import pytest

from p2psync.cli.amounts import count, moment, size
from p2psync.cli.arguments import absolute, seconds, span, version
from p2psync.cli.say import blocks, clean, columns, command, hint, paragraph, say, table, width


@pytest.mark.parametrize(
    ("bytes_", "said"),
    [
        (None, "–"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KB"),
        (12_345, "12.3 KB"),
        (123_456, "123 KB"),
        (999_600, "1.0 MB"),
        (2_100_000, "2.1 MB"),
        (5 * 10**15, "5000 TB"),
    ],
)
def test_sizes(bytes_: int | None, said: str) -> None:
    assert size(bytes_) == said


def at(text: str) -> float:
    return time.mktime(time.strptime(text, "%Y-%m-%d %H:%M"))


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ("2024-05-12 09:12", "today 09:12"),
        ("2024-05-11 17:40", "yesterday 17:40"),
        ("2024-05-02 09:05", "2 May 09:05"),
        ("2023-12-31 23:59", "31 Dec 2023"),
        ("2024-05-19 12:00", "19 May 12:00"),
    ],
)
def test_moments(when: str, said: str) -> None:
    assert moment(int(at(when) * 1000), at("2024-05-12 18:00")) == said


def test_moments_that_are_none_or_nonsense() -> None:
    assert moment(None) == "–"
    assert moment(2**80) == "at an impossible time"


def test_counts() -> None:
    assert [count(n, "file") for n in (0, 1, 2)] == ["0 files", "1 file", "2 files"]


@pytest.mark.parametrize(("text", "value"), [("7d", 604_800), ("12h", 43_200), ("90m", 5400), ("2W", 1_209_600)])
def test_spans(text: str, value: int) -> None:
    assert span(text) == value


@pytest.mark.parametrize("text", ["", "7", "d", "0d", "-1d", "7 days", "1.5h", "999999d", "٣d"])
def test_spans_that_are_none(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="12h or 7d"):
        span(text)


@pytest.mark.parametrize("text", ["", "x", "-1", "nan", "inf"])
def test_seconds_that_are_none(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        seconds(text)


def test_versions() -> None:
    assert version("3FA9") == "3fa9"
    for text in ("", "3fa", "mine", "3fa9c1d2z"):
        with pytest.raises(argparse.ArgumentTypeError):
            version(text)


def test_paths_are_made_absolute_by_their_words(tmp_path, monkeypatch) -> None:
    (tmp_path / "real.cre").write_text("")
    (tmp_path / "link.cre").symlink_to("real.cre")
    monkeypatch.chdir(tmp_path)
    assert absolute("sub/../link.cre") == tmp_path / "link.cre"
    with pytest.raises(argparse.ArgumentTypeError):
        absolute("")


def test_a_current_folder_that_is_gone_is_a_sentence(tmp_path, monkeypatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(argparse.ArgumentTypeError, match="does not exist any more"):
        absolute("x")


def test_nothing_reaches_the_terminal_unescaped(capsys) -> None:
    say(["\x1b[31mred\x07", "a\u202eb\u200b", "caf\udce9"])
    out = capsys.readouterr().out
    assert out == "\\u001b[31mred\\u0007\na\\u202eb\\u200b\ncaf\\udce9\n"
    assert clean(clean(out)) == clean(out)
    assert "\x1b" not in "".join(table([["\x1b[2J", "\n", "x\x1b"]]))


def test_commands_can_be_pasted() -> None:
    assert command("detach", "Dupont SA", "l'été.cre") == "p2psync detach 'Dupont SA' 'l'\"'\"'été.cre'"
    assert command("resolve", "DUPONT SA", "--keep", then="mine|theirs") == "p2psync resolve 'DUPONT SA' --keep mine|theirs"


def test_the_width_follows_the_terminal_within_reason(monkeypatch) -> None:
    for asked, given in (("80", 80), ("20", 40), ("400", 100), ("x", 80), ("0", 80)):
        monkeypatch.setenv("COLUMNS", asked)
        assert columns() == given


def test_a_command_in_a_hint_is_never_broken(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    long = command("resolve", "Dupont et Fils SA", "Dupont 2024.cre", "--keep", then="mine|theirs|both|VERSION")
    assert hint("Choose:", "  ", long) == ["  → Choose:", f"      {long}"]
    assert hint("Choose:", "  ", "p2psync x") == ["  → Choose: p2psync x"]


def test_tables_fit_and_leave_names_whole(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    long = "Comptabilité de la fiduciaire Müller & Cie, exercice 2024, définitif.cre"
    rows = [["a.cre", "Anna", "up to date"], [long, "Maximilienne-Charlotte de la Tour", "waiting: open on this machine " * 4]]
    lines = table(rows, "    ")
    assert "    a.cre  Anna                      up to date" in lines
    assert f"    {long}" in lines
    assert max(width(line) for line in lines) <= 80
    assert "Maximilienne-Charlotte …" in lines[2]
    assert [len(block) for block in blocks(rows, "    ")] == [1, len(lines) - 1]
    assert table([]) == []


def test_columns_count_what_a_terminal_shows() -> None:
    assert width("e\u0301té") == 3
    assert width("東京") == 4


def test_paragraphs_never_break_a_word(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert paragraph("/a/" + "x" * 60) == ["/a/" + "x" * 60]
    assert paragraph("", "  ", "Dupont:") == ["Dupont:"]
