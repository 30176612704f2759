"""The floors of docs/architecture.md: a file imports its own floor or a lower one, and the outside world only where it may."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest

import p2psync

ROOT = Path(p2psync.__file__).parent
FLOORS = {"values": 1, "engine": 2, "store": 3, "edge": 4, "daemon": 5, "cli": 6, "web": 6}

# Who may import what from outside. A library that stands here may be imported by these files and by no other.
ONLY = {
    "cryptography": ["engine/noise.py"],
    "msgpack": ["values/packing.py"],
    "trio": ["edge/*", "daemon/*", "cli/commands/run.py"],
    "zeroconf": ["edge/responder.py"],
    "ifaddr": ["edge/interfaces.py"],
    "watchdog": ["edge/observer.py"],
    "h11": ["edge/*"],
    "sqlite3": ["store/*"],
    "pyfastcdc": ["store/chunking.py"],
    "zstandard": ["store/*"],
    "blake3": ["values/*", "store/*"],
}

# What decides must be given the time, the dice and the world as arguments.
NEVER_ON_PURE_FLOORS = {
    "asyncio", "fcntl", "glob", "http", "os", "random", "secrets", "select", "shutil", "signal", "socket", "ssl", "subprocess",
    "tempfile", "threading", "time", "urllib",
}  # fmt: skip


@dataclass(frozen=True)
class Import:
    """One import statement: the file it stands in, the dotted module it names, and whether it runs when the file is imported."""

    file: str
    module: str
    line: int
    at_import: bool


def files() -> list[Path]:
    return sorted(path for path in ROOT.rglob("*.py"))


def place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports_of(path: Path) -> Iterator[Import]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    lazy = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        for node in ast.walk(function)
    }
    typing_only = {id(node) for branch in ast.walk(tree) if is_type_checking(branch) for node in ast.walk(branch)}
    for node in ast.walk(tree):
        for module in modules_named(node, path):
            yield Import(place(path), module, getattr(node, "lineno", 0), id(node) not in lazy and id(node) not in typing_only)


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def modules_named(node: ast.AST, path: Path) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        package = ("p2psync", *path.relative_to(ROOT).parent.parts)
        base = ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])
    submodules = [f"{base}.{alias.name}" for alias in node.names if is_module(f"{base}.{alias.name}")]
    return submodules or [base]


def is_module(dotted: str) -> bool:
    path = ROOT.parent.joinpath(*dotted.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def floor_of(dotted: str) -> int:
    """The floor of p2psync.X.…; the package itself (its version) stands below all."""
    parts = dotted.split(".")
    return FLOORS.get(parts[1], 0) if len(parts) > 1 else 0


ALL = [found for path in files() for found in imports_of(path)]


def test_every_file_stands_on_a_floor() -> None:
    strays = [place(path) for path in files() if "/" in place(path) and place(path).split("/")[0] not in FLOORS]
    assert strays == []
    assert [path.name for path in ROOT.glob("*.py")] in (["__init__.py"], ["__init__.py", "__main__.py"], ["__main__.py", "__init__.py"])


def test_imports_point_down() -> None:
    rising = [
        f"{found.file}:{found.line} imports {found.module}"
        for found in ALL
        if found.module.startswith("p2psync.") and "/" in found.file and floor_of(found.module) > FLOORS[found.file.split("/")[0]]
    ]
    assert rising == []


@pytest.mark.parametrize("library", sorted(ONLY))
def test_libraries_stay_in_their_files(library: str) -> None:
    elsewhere = [
        f"{found.file}:{found.line}"
        for found in ALL
        if found.module.split(".")[0] == library and not any(fnmatch(found.file, pattern) for pattern in ONLY[library])
    ]
    assert elsewhere == []


def test_the_command_line_imports_trio_late() -> None:
    early = [
        f"{found.file}:{found.line}"
        for found in ALL
        if found.file.startswith("cli/") and found.at_import and found.module.startswith(("trio", "p2psync.daemon", "p2psync.edge"))
    ]
    assert early == []


def test_pure_floors_see_no_world() -> None:
    impure = [
        f"{found.file}:{found.line} imports {found.module}"
        for found in ALL
        if found.file.startswith(("values/", "engine/")) and found.module.split(".")[0] in NEVER_ON_PURE_FLOORS
    ]
    assert impure == []


def test_no_module_imports_itself_by_a_detour() -> None:
    below = {
        dotted(path): {found.module for found in imports_of(path) if found.at_import and found.module.startswith("p2psync.")}
        for path in files()
    }
    settled: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " imports ".join([*trail[trail.index(module) :], module])
        if module in settled:
            return
        for lower in sorted(below.get(module, ())):
            visit(lower, (*trail, module))
        settled.add(module)

    for module in sorted(below):
        visit(module, ())


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
