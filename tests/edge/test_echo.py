"""A machine that asks itself: by mDNS on the loopback interface, and at its own port."""

from __future__ import annotations

import socket
from ipaddress import ip_interface

import pytest

from p2psync.edge import echo
from p2psync.edge.interfaces import Interface
from p2psync.edge.responder import Responder

LO = Interface("lo", 1, (ip_interface("127.0.0.1/8"),))


def test_who_announces_itself_answers_to_a_question() -> None:
    responder = Responder([LO], lambda seen: None)
    try:
        assert responder.instance is None
        responder.announce(b"", 22088, "0123abcd", "fedcba9876543210")
        assert responder.instance == "0123abcd"
        assert echo.asks("0123abcd", ["127.0.0.1"]) == {"127.0.0.1"}
        assert echo.asks("99999999", ["127.0.0.1"], patience_s=0.2) == set()
    finally:
        responder.close()


def test_an_address_that_this_machine_does_not_have_answers_nothing() -> None:
    assert echo.asks("0123abcd", ["192.0.2.1"], patience_s=0.1) == set()


@pytest.mark.parametrize("listening", [True, False])
def test_a_port_answers_when_somebody_listens(listening: bool) -> None:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        if listening:
            door.listen()
        assert echo.answers(["127.0.0.1"], door.getsockname()[1]) == ({"127.0.0.1"} if listening else set())
