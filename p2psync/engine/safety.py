"""What must wait for a person: many deletions at once are more often an accident than a wish.

The absence of things is no act. A deletion inside an attached folder is recorded only while the folder is really there, and not
when too much vanished together.
"""

MANY = 10
SHARE = 0.20


def must_halt(vanished: int, known: int, recent: int = 0, *, root_changed: bool) -> bool:
    """Whether ``vanished`` of ``known`` files, missed in one look at an attached folder, wait for a person.

    More than 10 and more than a fifth of them, ``recent`` ones that vanished shortly before included; all of several; or any at all
    when the folder itself is not the one that it was (another disk, a restored copy, an empty mount point).
    """
    if not vanished:
        return False
    at_once = vanished + recent
    return root_changed or (at_once > MANY and at_once > SHARE * (known + recent)) or (vanished == known and known > 1)
