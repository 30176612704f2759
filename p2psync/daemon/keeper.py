"""Keeps one mandate going: a mistake of ours costs its memory, never its data and never the other mandates.

What the error tree says decides: trouble of a mandate is retried after a scan, anything unexpected is logged, the task's memory dropped
and built anew from the ledger after a pause.
"""

import logging
import random
from contextlib import suppress

import trio

from p2psync.daemon.mandate import Mandate
from p2psync.daemon.troubles import Troubles
from p2psync.engine.backoff import Backoff
from p2psync.store import powercut
from p2psync.values.errors import MandateError, P2psyncError, UserError, parted

log = logging.getLogger(__name__)

STEADY_S = 60.0
"""A mandate that went on for so long is not in trouble any more."""


class MandateFailed(UserError):
    """“{mandate}” met an error inside p2psync and was started again ({why}). Nothing is lost; please report it if it comes back."""


class MandateTroubled(UserError):
    """“{mandate}” cannot go on at the moment: {why}. {do}"""


async def keep(mandate: Mandate, problems: Troubles[str], task_status: trio.TaskStatus[None]) -> None:
    """Run ``mandate`` until cancelled, again and again if need be; what is wrong meanwhile is in ``problems``."""
    backoff = Backoff(first=1.0, longest=60.0)
    key = f"mandate {mandate.id.hex()}"
    task_status.started()
    try:
        while True:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(mandate.run)
                    await mandate.gone_through.wait()
                    if isinstance(problems.get(key), MandateTroubled):  # a mistake of ours is shown for longer
                        _well(mandate, problems, key)
                    await trio.sleep(STEADY_S)
                    backoff.succeeded()
                    _well(mandate, problems, key)
            except* (MandateError, UserError) as trouble:
                problems[key] = _troubled(mandate, _first(trouble))
            except* Exception as mistake:
                log.exception("a mandate is started again")
                problems[key] = MandateFailed(mandate=mandate.books.name, why=type(_first(mistake)).__name__)
            mandate.forget()
            mandate.changed()
            await trio.sleep(backoff.failed(random.random()))
    finally:
        mandate.arrivals.close()
        with suppress(P2psyncError):  # then the files are read again, should the power have gone by the next start
            powercut.end(mandate.books)
        mandate.books.close()


def _troubled(mandate: Mandate, error: BaseException) -> MandateTroubled:
    why, do = parted(str(error))
    again = "It is tried again by itself."
    return MandateTroubled(mandate=mandate.books.name, why=why.rstrip("."), do=f"{do} {again}" if do else again)


def _well(mandate: Mandate, problems: dict[str, UserError], key: str) -> None:
    if problems.pop(key, None) is not None:
        mandate.changed()


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
