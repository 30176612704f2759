"""Paths and names: the whole rule set as a table. A path that exists as a value is one that every system can store."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psync.values import names
from p2psync.values.errors import BadName, BadPath
from p2psync.values.names import RelPath, component_fault, escaped, fold, label

GOOD = [
    "a",
    "Comptabilité 2025.abx",
    "Factures/2025/Nº 17 – Dupont & fils.pdf",
    "Müller, Söhne (neu)/Lohn #3 @ 50%.xlsx",
    "名前/ファイル.txt",
    "emoji 😀.txt",
    ".hidden",
    ".git/config",
    "..a",
    "...a",
    " leading space",
    "inner  spaces",
    "a.b.c",
    "con1",
    "console",
    "com",
    "com10",
    "lpt",
    "auxiliary.txt",
    "nullable",
    "a.con",
    "prn-2025.txt",
    "p2psync",
    "x.p2psync",
    "'quoted' $HOME `id` ; & ~",
    "!~^+={}[]",
    "é" * 127,
    "a" * 255,
    "/".join("d" * 31 for _ in range(32)),
    "/".join(["a"] * 32),
]


@pytest.mark.parametrize("path", GOOD)
def test_a_good_path(path: str) -> None:
    assert RelPath(path).text == path
    assert "/".join(RelPath(path).parts) == path
    assert RelPath.from_disk(*path.split("/")) == RelPath(path)


RESERVED = ["con", "prn", "aux", "nul", *(f"{name}{n}" for name in ("com", "lpt") for n in "0123456789¹²³"), "conin$", "conout$"]

BAD = {
    "nothing": "",
    "the folder itself": ".",
    "the folder above": "..",
    "up and away": "../x",
    "up in between": "a/../b",
    "up at the end": "a/..",
    "a dot in between": "a/./b",
    "absolute": "/etc/passwd",
    "a slash at the end": "a/",
    "two slashes": "a//b",
    "only a slash": "/",
    "a drive": "C:/x",
    "a drive's own folder": "C:x",
    "a share": "\\\\server\\x",
    "a backslash": "a\\b",
    "up by a backslash": "..\\x",
    "a stream": "file.txt:stream",
    "the data stream": "file.txt::$DATA",
    "less": "a<b",
    "more": "a>b",
    "a double quote": 'a"b',
    "a bar": "a|b",
    "a question mark": "a?",
    "a star": "*.txt",
    "NUL": "a\0b",
    "a line end": "a\nb",
    "a tab": "a\tb",
    "an escape": "a\x1b[31m",
    "unit separator": "a\x1fb",
    "delete": "a\x7fb",
    "a dot at the end": "a.",
    "dots at the end": "a..",
    "a space at the end": "a ",
    "a space at a folder's end": "a /b",
    "a dot at a folder's end": "a./b",
    "three dots": "...",
    "only a space": " ",
    "our prefix": ".p2psync",
    "our prefix, longer": ".p2psync-0123.part",
    "our prefix in capitals": ".P2PSYNC-x",
    "our prefix in a folder": "a/.p2psync-x/b",
    "our prefix by case folding": ".p2p\u017fync-x",
    "too long a component": "a" * 256,
    "too long a component in bytes": "é" * 128,
    "too long a path": "/".join(["a" * 200] * 6),
    "too deep": "/".join(["a"] * 33),
    "not composed": "Comptabilite\u0301.abx",
    "not composed, in a folder": "e\u0301/a",
    "a compatibility angstrom": "\u212b",
    "a lone surrogate": "a\ud800",
    "an undecodable byte": "a\udcff.txt",
    **{f"the device {name}": name for name in RESERVED},
    "a device in capitals": "NUL",
    "a device with an extension": "con.txt",
    "a device with two": "LPT1.tar.gz",
    "a device, space, extension": "aux .txt",
    "a device as a folder": "a/com1/b",
    **{
        f"hidden U+{ord(c):04X}": f"a{c}b"
        for c in "\u00ad\u200b\u200c\u200d\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2069\ufeff"
    },
    "a hidden tag": "a\U000e0041",
    ".git by a hidden sign": ".g\u200cit/config",
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_path_cannot_exist(what: str) -> None:
    with pytest.raises(BadPath) as caught:
        RelPath(BAD[what])
    sentence = str(caught.value)
    assert sentence.endswith(". Rename it, and it will be taken.")
    assert sentence.isprintable()


@pytest.mark.parametrize("what", BAD)
def test_a_bad_path_cannot_come_from_a_disk_or_by_joining(what: str) -> None:
    if what.startswith(("not composed", "a compatibility")):  # a disk may well hold those: they are brought to NFC
        assert RelPath.from_disk(*BAD[what].split("/")).text == unicodedata.normalize("NFC", BAD[what])
        return
    with pytest.raises(BadPath):
        RelPath.from_disk(*BAD[what].split("/"))
    with pytest.raises(BadPath):
        RelPath("/".join(["a"] * 31)) / "b" / BAD[what]


@given(st.text(max_size=80))
def test_every_text_is_a_safe_path_or_none(text: str) -> None:
    try:
        path = RelPath(text)
    except BadPath:
        return
    assert path.text == text == unicodedata.normalize("NFC", text)
    assert all(part not in ("", ".", "..") and part[-1] not in ". " for part in path.parts)
    assert not set(text) & set('\\:<>"|?*\0')
    assert len(text.encode()) <= 1024


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Bilan.abx", "BILAN.ABX", True),
        ("Straße", "STRASSE", True),
        ("Σίσυφος", "ΣΊΣΥΦΟΣ", True),
        ("é", "É", True),
        ("K", "\u212a", True),
        ("e", "é", False),
        ("a b", "a  b", False),
        ("ı", "i", False),
    ],
)
def test_names_that_some_file_system_takes_for_one(one: str, other: str, same: bool) -> None:
    assert (fold(one) == fold(other)) is same
    assert fold(fold(one)) == fold(one)


def test_the_parts_of_a_path() -> None:
    path = RelPath("Books/2025/Bilan.abx")
    assert (path.top, path.name, path.parent) == ("Books", "Bilan.abx", RelPath("Books/2025"))
    assert RelPath("Books").parent is None
    assert RelPath("Books") / "2025" == RelPath("Books/2025")
    assert path.fold == RelPath("BOOKS/2025/BILAN.abx").fold
    assert component_fault("ok") is None
    assert str(path) == "Books/2025/Bilan.abx"
    assert sorted([RelPath("b"), RelPath("a/c")]) == [RelPath("a/c"), RelPath("b")]


@pytest.mark.parametrize(
    ("given_", "shown"),
    [
        ("Dupont", "Dupont"),
        ("a\nb", "a\\u000ab"),
        ("a\x1b[2J", "a\\u001b[2J"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("a\u200bb", "a\\u200bb"),
        ("\ud800", "\\ud800"),
        ("“é” 😀", "“é” 😀"),
    ],
)
def test_what_is_shown_cannot_command_a_terminal(given_: str, shown: str) -> None:
    assert escaped(given_) == shown
    assert escaped(given_).isprintable()


@pytest.mark.parametrize(
    ("text", "name"), [(" Olga ", "Olga"), ("Ge\u0301raldine", "Géraldine"), ("Dupont & Söhne (3)", "Dupont & Söhne (3)")]
)
def test_a_name_for_people(text: str, name: str) -> None:
    assert label(text) == name


@pytest.mark.parametrize("text", ["", "   ", "a\nb", "a\u202eb", "a\0", "x" * 65, "é" * 33, "\ud800"])
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(BadName):
        label(text)


_LIKELY = st.sampled_from([*"aZ09_ .-/()#'\n", "con", "COM1", "nul", "lpt9", "prn", "conin$", "é", ".."])


@given(st.lists(_LIKELY, max_size=12).map("".join) | st.text(max_size=20))
def test_the_quick_yes_is_never_given_to_what_the_rules_refuse(text: str) -> None:
    if names._PLAIN.fullmatch(text) and len(text) <= names.MAX_PATH:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(names, "_PLAIN", re.compile(r"(?!)"))
            assert RelPath(text).text == text


@given(st.text(max_size=20))
def test_folding_plain_letters_is_folding(text: str) -> None:
    plain = text.encode("ascii", "ignore").decode()
    assert fold(plain) == unicodedata.normalize("NFC", unicodedata.normalize("NFC", plain).casefold())
