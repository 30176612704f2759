"""Names that are never shared: our own files, and what programs leave beside a file while they work on it.

Only names that no person gives to a book of accounts are listed; when in doubt a file is shared. Sharing a lock file would tell
every machine that the file is open on each of them.

Of the log and the journal that SQLite keeps beside a database the name does not tell enough (``grand-journal``): ``database_of`` says
which file to look at, and store/sqlitefile looks.
"""

import re

from p2psync.values.names import PREFIX, fold

_BY_WORK = re.compile(
    r"""  ~\$.*                                             # Microsoft Office: who has the file open
        | \.~lock\..*\#                                     # LibreOffice: the same
        | ~wr[ld]\d+\.tmp | \.\#.* | \..*\.sw[a-p]          # what Word, Emacs and Vim write into while a file is open
        | \.goutputstream-.{6}                              # GLib, in the middle of a save
        | \.nfs[0-9a-f]{16,} | \.fuse_hidden[0-9a-f]{16,}   # deleted on a network disk, but still open somewhere
        | \.ds_store | \._.* | thumbs\.db | desktop\.ini    # how a file manager likes to show the folder
    """,
    re.VERBOSE | re.DOTALL,
)

_FIRST = {"~", ".", "t", "T", "d", "D"}
"""What such names begin with, before they are looked at closely; no other letter is folded to one of these."""


def is_by_work(name: str) -> bool:
    """Whether ``name``, one component as it stands on disk, belongs to p2psync or to a program at work, and is never shared."""
    if name[:1] not in _FIRST:
        return False
    folded = fold(name)
    return folded.startswith(PREFIX) or _BY_WORK.fullmatch(folded) is not None


def lock_names(name: str) -> tuple[str, ...]:
    """The names of the lock files that would say that ``name`` is open, LibreOffice's first.

    Word writes ``~$`` over the first one or two letters of a longer name, Excel and PowerPoint before it.
    """
    return (f".~lock.{name}#", f"~${name}", f"~${name[1:]}", f"~${name[2:]}")


def database_of(name: str) -> str | None:
    """The database that ``name`` would belong to if it were one of the files that SQLite keeps beside a database, or None."""
    stem, dash, end = name.rpartition("-")
    return stem if stem and dash and end in ("wal", "shm", "journal") else None


def halves_of(database: str) -> tuple[str, str]:
    """The names of the log and of the journal without which the ``database`` may be incomplete."""
    return f"{database}-wal", f"{database}-journal"
