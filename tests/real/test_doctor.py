"""The doctor on machines of their own: a question by mDNS on a real interface, a port that is reached from outside, a cable that is out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.real.machines import READY, Cable, Machine, Network, ip

pytestmark = [pytest.mark.real, pytest.mark.skipif(not READY, reason="needs root and network namespaces")]

BOOKS = "Dupont SA"


@pytest.fixture
def desks(tmp_path: Path) -> Iterator[tuple[Machine, Machine]]:
    network = Network()
    try:
        switch = network.switch("office")
        anna = Machine(network.namespace("anna"), "Anna", tmp_path / "anna")
        bruno = Machine(network.namespace("bruno"), "Bruno", tmp_path / "bruno")
        Cable(anna.namespace, "lan0", "10.9.0.1", switch)
        Cable(bruno.namespace, "lan0", "10.9.0.2", switch)
        for machine in (anna, bruno):
            machine.start()
        for machine in (anna, bruno):
            machine.answers()
        yield anna, bruno
        for machine in (anna, bruno):
            machine.stop()
    finally:
        network.close()


def doctor(machine: Machine) -> dict[str, dict[str, Any]]:
    return {one["code"]: one for one in machine.get("/v1/doctor")["findings"]}


def test_two_machines_that_find_and_reach_each_other_and_a_cable_that_is_out(desks: tuple[Machine, Machine]) -> None:
    anna, bruno = desks
    assert {"network", "mdns-silent", "port", "not-needed", "watched", "clock-alone"} <= doctor(anna).keys()
    assert "ok         Port 22088 answers at 10.9.0.1.\n" in anna.does("doctor")
    book = anna.place / "journal.csv"
    book.write_text("one")
    anna.does("create", BOOKS, book)
    anna.does("share", BOOKS)
    ticket = anna.place / "bruno.crsync"
    anna.does("invite", BOOKS, "--for", "Bruno", "-o", ticket)
    anna.until("it answers to a question by mDNS", lambda: "10.9.0.1" in doctor(anna).get("mdns", {}).get("sentence", ""))
    bruno.does("subscribe", ticket)
    bruno.does("wait", BOOKS, "--timeout", "20")
    reached = [one["reached"]["sentence"] for one in map(doctor, desks) if "reached" in one]
    assert reached and all("the last one from 10.9.0." in sentence or "the last one from fe80:" in sentence for sentence in reached)
    assert "Bruno" in doctor(anna)["clock"]["sentence"]
    ip("-n", bruno.namespace, "address", "flush", "dev", "lan0")
    bruno.until("it notices that it is on no network", lambda: "no-network" in doctor(bruno))
    assert "→ Connect it" in bruno.does("doctor", code=4)
