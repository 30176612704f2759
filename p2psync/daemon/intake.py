"""Records that a peer sends: taken into the books, passed on, and what they give away about machines that exist twice."""

from functools import partial
from typing import TYPE_CHECKING

from p2psync.daemon.conversation import BadRecord, Conversation
from p2psync.engine import messages as m
from p2psync.store import resuming, reuniting
from p2psync.store.books import Accepted
from p2psync.values.errors import UserError
from p2psync.values.names import DeviceId, RelPath, escaped
from p2psync.values.record import Kind

if TYPE_CHECKING:
    from p2psync.daemon.mandate import Mandate


class MachineTwice(UserError):
    """A machine of {person} exists twice in “{mandate}”, or was restored from a backup: two different histories are signed by it. Use one
    of them only, and subscribe the other again with a new ticket.
    """


class MandateFull(UserError):
    """“{mandate}” does not take everything that other machines send ({why}). Ask its owner whether somebody misuses it."""


class Intake:
    """Takes records on behalf of one mandate."""

    def __init__(self, mandate: "Mandate") -> None:
        self._mandate = mandate

    async def accept(self, raws: list[bytes], source: Conversation | None) -> Accepted:
        """Take records that arrived, pass the new ones on, and have their paths worked on. Who sent bad ones is left."""
        mandate = self._mandate
        try:
            accepted = await mandate.in_thread(partial(mandate.books.accept, raws, source))
        except UserError as e:
            mandate.troubled("recording", e)
            raise
        mandate.well("recording")
        mandate.after(accepted.new, accepted.touched, source)
        await self._own_log_elsewhere(accepted)
        for record in accepted.new:
            if record.kind == Kind.RESUME:  # which says how things are, and is shown by itself
                mandate.well(f"twice {record.device.hex()}")
        for sender, why in accepted.alarms:
            if isinstance(sender, Conversation):
                sender.peer.cut(BadRecord(why=why))
        for forked in accepted.forks:
            if mandate.books.journal.at(forked.log, forked.seq) is not None:  # otherwise it was our own, and has given way
                self._troubled_twice(forked.device)
        if accepted.full:
            mandate.troubled("full", MandateFull(mandate=escaped(mandate.books.name), why=accepted.full[0]))
        return accepted

    async def _own_log_elsewhere(self, accepted: Accepted) -> None:
        """Others hold more of our own log than we did, or something else: it is not ours alone, and is left (store/resuming)."""
        mandate, books = self._mandate, self._mandate.books
        forks = [record for record in accepted.forks if record.device == books.keys.device]
        if forks or any(record.log == books.own_log for record in accepted.new):
            forked = min(forks, key=lambda record: record.seq, default=None)
            await mandate.between_rounds(lambda: mandate.note_new(resuming.leave_log(books, forked)))
            for conversation in mandate.conversations:
                conversation.ask_again()
            mandate.look_over(set(books.locations()))
        if reuniting.has_forgotten(books) and accepted.touched:
            mandate.retry(await mandate.between_rounds(partial(self._reunite, accepted.touched)))

    def _reunite(self, touched: set[RelPath]) -> set[RelPath]:
        records, settled = reuniting.reunite(self._mandate.books, touched)
        self._mandate.note_new(records)
        return settled

    def notice_fork(self, peer: DeviceId, heads: m.Heads) -> None:
        """A peer says that another record than the one that we hold stands in its own log: it exists twice, or was restored."""
        for head in heads.logs:
            if head.device == peer and self._mandate.books.journal.at((peer, head.incarnation), head.seq) not in (None, head.id):
                self._troubled_twice(peer)

    def _troubled_twice(self, device: DeviceId) -> None:
        mandate = self._mandate
        error = MachineTwice(person=mandate.person(device), machine=mandate.machine(device), mandate=escaped(mandate.books.name))
        mandate.troubled(f"twice {device.hex()}", error)
