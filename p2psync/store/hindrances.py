"""Why a path is not what it is to be, and when it is tried again: what the errors of the disk mean for a job."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from p2psync.engine.attention import Attention
from p2psync.store import naming, paths
from p2psync.store.books import Books
from p2psync.store.jobs import BUSY_AGAIN, Job, Worked
from p2psync.store.openfiles import OpenBy
from p2psync.store.paths import PathView
from p2psync.store.root import NameTaken, RootGone
from p2psync.store.scan import Fresh
from p2psync.store.space import SpaceShort
from p2psync.store.swap import BusyFile, ChangedMeanwhile
from p2psync.values.errors import P2psyncError, UserError
from p2psync.values.names import escaped

FAULT_AGAIN = 20.0
"""Seconds until a full or forbidden disk is tried again."""
EMPTY_AGAIN = 1.0
"""Seconds until a folder that is to go, or a file that is to become one, is looked at again."""
SOON_AGAIN = 1.0
"""Seconds until something is tried again that another step is about to clear away."""


class NotAsSeen(ChangedMeanwhile):
    """“{path}” does not hold what it was seen to hold, although nothing else about it changed. It is read again."""


class Hindrances:
    """Tells what keeps the jobs of one mandate from being done."""

    def __init__(self, books: Books) -> None:
        self._books = books

    @contextmanager
    def telling(self, job: Job, worked: Worked) -> Iterator[None]:
        """What goes wrong with a job within the block is said in ``worked``, and when it is tried again."""
        try:
            yield
        except BusyFile as busy:
            self._busy(job, busy, worked)
        except NotAsSeen:
            self._doubt(job)
            worked.look_again.add(job.path)
        except ChangedMeanwhile:
            self._changed(job, worked)
        except RootGone:
            worked.absent.add(job.location.name)
        except NameTaken as e:
            worked.attention[job.path.text] = self._attention("in-the-way", location=e.facts["path"])
            worked.again[job.path] = EMPTY_AGAIN
        except SpaceShort as short:
            worked.attention[job.path.text] = self._attention("space-short", **short.facts)
            worked.again[job.path] = FAULT_AGAIN
        except UserError as e:
            worked.attention[job.path.text] = self._attention("unwritable", why=e.cause, do=e.action)
            worked.again[job.path] = FAULT_AGAIN
        except P2psyncError:
            worked.again[job.path] = SOON_AGAIN

    def _changed(self, job: Job, worked: Worked) -> None:
        """Something else stands at the path than was seen: it is looked at, unless another name, which has yet to go, stands for it."""
        other = None
        with suppress(P2psyncError):
            stands = job.location.open().stamp(job.parts) if job.view.observed is None else None
            other = naming.shown_for(self._books.ledger.read(), job.path, stands) if stands else None
        if other is None:
            worked.look_again.add(job.path)
        else:
            worked.attention[job.path.text] = self._attention("name-collision", other=other)
            worked.again[job.path] = EMPTY_AGAIN

    def _doubt(self, job: Job) -> None:
        if job.view.observed is not None:
            doubted = Fresh(job.view.observed.stamp, job.view.observed.state)
            with self._books.writing() as db:
                paths.put(db, PathView(job.path, job.view.disk, doubted, job.view.agreed))

    def _busy(self, job: Job, busy: BusyFile, worked: Worked) -> None:
        opened = busy.facts["by"]
        assert isinstance(opened, OpenBy)
        who = opened.who
        by = f" by {who}" if who else ""
        if opened.since_ms:
            by += time.strftime(" since %H:%M", time.localtime(opened.since_ms / 1000))
        if opened.lock is None:
            worked.attention[job.path.text] = Attention("open-here", self._books.now_ms(), {"by": by}, who)
        else:
            facts: dict[str, object] = {"by": by, "lock": escaped(opened.lock)}
            worked.attention[job.path.text] = Attention("locked-here", self._books.now_ms(), facts, who)
        worked.again[job.path] = BUSY_AGAIN

    def _attention(self, code: str, **facts: object) -> Attention:
        return Attention(code, self._books.now_ms(), facts)
