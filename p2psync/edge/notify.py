"""What systemd wants to know of a service: ready, stopping, what it is doing, and that it is alive (sd_notify(3)).

Outside of systemd everything here does nothing. Nothing here fails: a service manager that does not listen is no reason to stop.
"""

import contextlib
import os
import socket
from collections.abc import Mapping

import trio


class Notifier:
    """The line to the service manager named by ``NOTIFY_SOCKET`` in ``environ``, if there is one."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._watchdog_us = _watchdog_us(environ)

    @property
    def watchdog_s(self) -> float | None:
        """Seconds between two signs of life: half of what the manager waits for; None when it waits for none."""
        return self._watchdog_us / 2_000_000 if self._address and self._watchdog_us else None

    def ready(self, status: str = "") -> None:
        """The start is over: sockets are open, state is loaded."""
        self._send("READY=1", status)

    def stopping(self, status: str = "") -> None:
        """The stop has begun."""
        self._send("STOPPING=1", status)

    def status(self, text: str) -> None:
        """One line for ``systemctl status``."""
        self._send("", text)

    async def keep_alive(self) -> None:
        """Send a sign of life as often as is asked, for ever; returns at once when none is asked for.

        Run it beside everything else: when trio is stuck, the signs stop, and that is what they are for.
        """
        while (seconds := self.watchdog_s) is not None:
            self._send("WATCHDOG=1", "")
            await trio.sleep(seconds)

    def _send(self, state: str, status: str) -> None:
        lines = [state] if state else []
        if status:
            lines.append("STATUS=" + " ".join(status.split()))  # a line break would start another assignment
        if not self._address or not lines:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line:
            line.setblocking(False)
            line.sendto("\n".join(lines).encode(errors="replace"), address)


def _watchdog_us(environ: Mapping[str, str]) -> int:
    """Microseconds within which the manager wants a sign of life from this process; 0 when from none (sd_watchdog_enabled(3))."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0
    text = environ.get("WATCHDOG_USEC", "")
    return int(text) if text.isascii() and text.isdigit() else 0
