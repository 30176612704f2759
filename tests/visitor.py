"""Another user of this machine, who has to get at what a test made."""

from pathlib import Path


def let_in(folder: Path) -> None:
    """Let every user into a test's folder: pytest makes those above it for one user only."""
    for one in (folder, *folder.parents):
        if one == Path.home() or (one != folder and one.stat().st_mode & 0o001):
            return
        one.chmod(one.stat().st_mode & 0o7777 | 0o055)
