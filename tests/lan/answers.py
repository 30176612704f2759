"""What every status has to tell: a state other than “synced” comes with code, reason, machine and next action (L2 of the invariants)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import trio

from p2psync.engine.attention import ORDER, REASONS
from p2psync.engine.concerns import CONCERNS
from tests.lan.fake_lan import Machine

SINCE = {"sending", "being-read"}
"""Reasons of which nobody notes since when they are so."""


class Listener:
    """Looks at each status of some machines, whenever something may have changed, and keeps the codes that it came upon."""

    def __init__(self) -> None:
        self.codes: set[str] = set()

    async def hear(self, machine: Machine, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """For as long as the machine is on."""
        with machine.office.news.reading() as reader:
            task_status.started()
            while True:
                await self.look(machine)
                await reader.next()

    async def look(self, machine: Machine) -> None:
        """Look at the status once."""
        status = await machine.status()
        faults = [f"{machine.person}: {fault}" for fault in faults_of(status)]
        assert not faults, "\n".join(faults)
        self.codes |= {str(one["code"]) for one in _everything(status) if one.get("code")}


def _everything(status: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from status["problems"]
    for mandate in status["mandates"]:
        yield from mandate["notices"]
        yield from mandate["participants"]
        for attachment in mandate["attachments"]:
            yield attachment
            yield from attachment["attention"]


def faults_of(status: dict[str, Any]) -> Iterator[str]:
    """What is missing in a status."""
    for problem in status["problems"]:
        yield from _faults(problem, "message")
    for mandate in status["mandates"]:
        for notice in mandate["notices"]:
            yield from _faults(notice, "reason", CONCERNS)
        for attachment in mandate["attachments"]:
            yield from _of_state(attachment)
            for one in attachment["attention"]:
                yield from _of_state(one)
                if one["state"] == "synced":
                    yield f"{one['name']} needs attention and is up to date"
        for person in mandate["participants"]:
            if not person["self"] and not (person["online"] and person["in_sync"]):
                yield from _faults(person, "reason", CONCERNS)
        if not mandate["summary"]:
            yield f"nothing is said of {mandate['name']} in a few words"


def _of_state(item: dict[str, Any]) -> Iterator[str]:
    if item["state"] not in ORDER:
        yield f"{item['name']} is {item['state']}"
    if item["state"] == "synced":
        if item["code"] or item["reason"] or item["action"]:
            yield f"{item['name']} is up to date and has a reason not to be: {item['reason']}"
        return
    yield from _faults(item, "reason", REASONS)
    if item["since"] is None and item["code"] not in SINCE:
        yield f"{item['name']}, {item['code']}: since when?"


def _faults(item: dict[str, Any], sentence: str, table: Any = None) -> Iterator[str]:
    shown = f"{item.get('name')}, {item.get('code')}"
    if table is not None and item.get("code") not in table:
        yield f"{shown}: no code of the table"
    for field in (sentence, "action", "machine"):
        text = item.get(field)
        if not text or "{" in text or "  " in text or text.strip() != text or ".." in text:
            yield f"{shown}: {field} is {text!r}"
    if str(item.get("action")).endswith(":") != bool(item.get("commands")):
        yield f"{shown}: an action without its commands, or the other way round"
    if item.get("since") is not None and item["since"] < 1_600_000_000_000:
        yield f"{shown}: since {item['since']}"
