"""Verifying: everything that this machine keeps is read again and compared with the journal, while the work goes on.

One verification at a time, for one mandate or all of them, in pieces that hold nobody up. What a disk has damaged is named. A piece of the
history is fetched again from another machine and put in its place; a file is left as it is, for only a person replaces it.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import trio

from p2psync.daemon.recalling import recall
from p2psync.engine.attention import Attention, ready
from p2psync.store import checking, versions
from p2psync.store.checking import Stopped
from p2psync.store.copies import Copy
from p2psync.store.paths import PathView
from p2psync.store.sources import VAULTED
from p2psync.store.spots import Spot
from p2psync.values.content import Content, File
from p2psync.values.digest import Digest
from p2psync.values.errors import P2psyncError, UserError
from p2psync.values.names import RelPath, escaped

if TYPE_CHECKING:
    from p2psync.daemon.mandate import Mandate
    from p2psync.daemon.office import Office

log = logging.getLogger(__name__)

RECORDS = 200
CHUNKS = 32
"""Records and chunks that are checked in one go: some ten milliseconds."""
MOST_FINDINGS = 1000
"""More than that are counted, and not told one by one."""


class VerifyRuns(UserError):
    """p2psync is verifying {what} already. Wait until that is done, then ask again."""


class Finding(NamedTuple):
    """One thing that is not as it should be: of which mandate, what, and whether it was put right."""

    mandate: str
    kind: str
    name: str | None
    version: str | None
    message: str
    action: str
    mended: bool


class Verifying:
    """The verification of one daemon: the one that runs, or the last one."""

    def __init__(self, office: "Office") -> None:
        self._office = office
        self._wanted: list[Mandate] = []
        self._begin = trio.Event()
        self._stopped = False
        self.running = False
        self.done = self.total = self.records = self.chunks = self.files = self.more = 0
        self.what = ""
        self.findings: list[Finding] = []
        self._lost: set[Digest] = set()

    async def run(self) -> None:
        """Carry out what is asked for, until cancelled."""
        try:
            while True:
                await self._begin.wait()
                self._begin = trio.Event()
                for mandate in self._wanted:
                    await self._verify(mandate)
                self.running = False
                self._office.changed(None)
        finally:
            self._stopped, self.running = True, False

    def begin(self, asked: "Mandate | None") -> None:
        """Begin to verify a mandate, or all; one that runs and is about the same goes on. Raises: VerifyRuns."""
        what = f"“{asked.books.name}”" if asked else "every mandate"
        if self.running:
            if what != self.what:
                raise VerifyRuns(what=self.what)
            return
        self._wanted = [asked] if asked else list(self._office.mandates.values())
        self.done = self.total = self.records = self.chunks = self.files = self.more = 0
        self.what, self.findings, self.running = what, [], True
        self._lost = set()
        self._begin.set()

    def told(self) -> dict[str, Any]:
        """How far it is, and what was found."""
        return {
            "running": self.running,
            "what": self.what,
            "done": self.done,
            "total": max(self.total, self.done),
            "records": self.records,
            "chunks": self.chunks,
            "files": self.files,
            "findings": [finding._asdict() for finding in self.findings],
            "more": self.more,
        }

    # ---- one mandate

    async def _verify(self, mandate: "Mandate") -> None:
        before = len(self.findings)
        for phase in (self._check_records, self._check_chunks, self._check_files, self._check_copies):
            try:
                await phase(mandate)
            except P2psyncError as trouble:
                self._found(mandate, "disk", None, None, str(trouble), "", mended=False)
            except Exception as mistake:  # a damaged database answers in many ways, and the rest is to be checked all the same
                log.exception("a part of a verification ended")
                message = f"“{escaped(mandate.books.name)}” could not be verified to the end ({type(mistake).__name__})."
                self._found(mandate, "disk", None, None, message, "Check the disk, and report it if it comes back.", mended=False)
        found = sum(not finding.mended for finding in self.findings[before:])
        with suppress(P2psyncError):
            await mandate.in_thread(partial(checking.note_verified, mandate.books, found))
        mandate.changed()

    async def _check_records(self, mandate: "Mandate") -> None:
        after: int | None = 0
        while after is not None:
            checked = await mandate.in_thread(partial(checking.records, mandate.books, after, RECORDS))
            self.records, after = self.records + checked.number, checked.after
            for fault in checked.faults:
                action = (
                    f"Move the folder {mandate.books.state} away and subscribe again with a new ticket: the journal then comes from the"
                    " others. Keep that folder, and find out who had access to it."
                )
                self._found(mandate, "journal", None, None, f"In “{escaped(mandate.books.name)}” {fault}.", action, mended=False)
            await trio.lowlevel.checkpoint()

    async def _check_chunks(self, mandate: "Mandate") -> None:
        self.total += mandate.books.vault.used
        after: Digest | None = None
        while True:
            pieces = await mandate.in_thread(partial(checking.chunks, mandate.books, after, CHUNKS))
            self.chunks, self.done, after = self.chunks + pieces.number, self.done + pieces.size, pieces.after
            for chunk in pieces.damaged:
                await self._mend(mandate, chunk)
            if after is None:
                return
            await trio.lowlevel.checkpoint()

    async def _mend(self, mandate: "Mandate", chunk: Digest) -> None:
        """A chunk of the vault is damaged: have it again, from a file here or from another machine."""
        books = mandate.books
        needing = await mandate.in_thread(partial(checking.holders, books, chunk))
        if not needing:  # no version is the poorer for it
            return
        asked = [holder for holder in needing if await self._have(mandate, holder.content)]
        mended = bool(asked) and await mandate.in_thread(partial(books.vault.get, chunk)) is not None
        for holder in needing:
            version, person = holder.version, mandate.person(holder.version.device)
            what = f"“{escaped(version.entry.path.text)}”, version {version.short} by {person}"
            told = f"A piece of {what}, was damaged in the history on this disk"
            if mended:
                said, action = f"{told}; it was fetched again and is in order.", ""
            else:
                said = f"{told}, and no machine that is online has it."
                action = f"Verify again when {person}’s machine is on, and check the disk of “{books.vault.path}”."
            self._found(mandate, "chunk", version.entry.path.text, version.short, said, action, mended=mended)

    async def _have(self, mandate: "Mandate", content: Content) -> bool:
        """Whether the vault has a content, from others if need be; what nobody has is not asked for again and again."""
        if content.digest in self._lost:
            return False
        with suppress(P2psyncError):
            if await recall(mandate, content, vaulted=True):
                return True
        self._lost.add(content.digest)
        return False

    async def _check_files(self, mandate: "Mandate") -> None:
        files = await mandate.in_thread(partial(checking.files, mandate.books))
        self.total += sum(view.observed.stamp.size for view in files if view.observed)
        for view in files:
            await self._check_file(mandate, view)

    async def _check_file(self, mandate: "Mandate", view: PathView) -> None:
        assert view.observed is not None and isinstance(view.observed.state, File)
        try:
            bad = await mandate.in_thread(partial(checking.is_damaged, mandate.books, view, self._is_stopped(mandate, view)))
        except Stopped:
            return
        self.done += view.observed.stamp.size
        self.files += bad is not None
        if bad is None:
            mandate.look_at({Spot(view.path, view.disk)})
        if not bad:
            return
        await mandate.in_thread(partial(checking.note_damaged, mandate.books, view))
        show_damaged(mandate)
        content = view.observed.state.content
        good = content.size <= VAULTED and await self._have(mandate, content)
        location = mandate.books.locations()[RelPath(view.path.top)]
        known = {"path": view.path, "mandate": mandate.books.name, "location": location.root.joinpath(*location.parts(view.disk))}
        why = Attention("damaged-file", mandate.books.now_ms())
        there = " The good version is in the history."
        if not good:
            online = bool(mandate.conversations)
            there = " The good version is fetched when you do." if online else " No other machine is online to fetch it from."
        action = f"{why.action(**known)} {why.commands(**known)[0]}"
        self._found(mandate, "file", view.path.text, None, f"{why.reason(**known)}{there}", action, mended=False)

    async def _check_copies(self, mandate: "Mandate") -> None:
        for copy in await mandate.in_thread(partial(checking.beside, mandate.books)):
            await self._check_copy(mandate, copy)

    async def _check_copy(self, mandate: "Mandate", copy: Copy) -> None:
        try:
            another = await mandate.in_thread(partial(checking.is_another, mandate.books, copy, lambda: self._stopped))
        except Stopped:
            return
        self.files += another is not None
        if not another:
            return
        books = mandate.books
        version = await mandate.in_thread(lambda: versions.version_of(books.ledger.read(), copy.ref))
        place = books.locations()[RelPath(copy.path.top)].root.joinpath(*copy.disk)
        name = escaped(copy.path.text)
        said = (
            f"“{escaped(str(place))}” no longer holds the other version of “{name}”, {version.short} by {mandate.person(version.device)}:"
            " somebody worked on it, or the disk has damaged it. That version is in the history."
        )
        (command,) = ready(("p2psync history {mandate} {path}",), {"mandate": books.name, "path": copy.path})
        action = f"If nobody worked on it, check the disk, and choose by the history: {command}"
        self._found(mandate, "copy", copy.path.text, version.short, said, action, mended=False)

    def _is_stopped(self, mandate: "Mandate", view: PathView) -> Callable[[], bool]:
        """Whether the reading of a file is to end: with the daemon, or because a newer version waits for a file that we have open."""

        def stopped() -> bool:
            waits = mandate.attention.get(view.path.text)
            return self._stopped or (waits is not None and waits.code == "open-here")

        return stopped

    def _found(
        self, mandate: "Mandate", kind: str, name: str | None, version: str | None, message: str, action: str, *, mended: bool
    ) -> None:
        if len(self.findings) < MOST_FINDINGS:
            self.findings.append(Finding(mandate.books.name, kind, name, version, message, action, mended))
        else:
            self.more += 1


def show_damaged(mandate: "Mandate") -> None:
    """Have the status show which files are damaged, for as long as they are."""
    bad = {path.text for path in checking.damaged(mandate.books)}
    shown = mandate.attention.with_code("damaged-file")
    for path in shown - bad:
        del mandate.attention[path]
    for path in bad - shown:
        mandate.attention.setdefault(path, Attention("damaged-file", mandate.books.now_ms()))
    if bad != shown:
        mandate.changed()
