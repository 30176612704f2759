"""What every test must leave behind: no thread, and nothing logged as an error that it did not expect; and where its files are."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import settings

THREAD_GRACE_S = 3.0
MEMORY = "/dev/shm"
IN_MEMORY = 2 << 30
"""So many bytes have to be free there (the largest story keeps 600 MB)."""
IDLE_WORKER = "Trio thread"  # trio keeps finished worker threads for later use; a busy one carries the name of its work

if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > IN_MEMORY:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", MEMORY)  # a disk that never waits for its sync, with the same rules as any other

if not os.environ.get("P2PSYNC_LONG"):
    settings.register_profile(
        "the same every time", derandomize=True, deadline=None
    )  # what is new is looked for in long runs, not by whoever builds it
    settings.load_profile("the same every time")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, so that at the end nobody waits for one file."""
    items.sort(key=lambda item: item.path.parent.name not in ("sim", "real", "story"))


@pytest.fixture(autouse=True)
def no_leaked_threads() -> Iterator[None]:
    """Fail a test that leaves a thread running."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + THREAD_GRACE_S
    while (left := _left_over(before)) and time.monotonic() < deadline:
        left[0].join(0.05)
    if left:
        pytest.fail(f"left threads running: {', '.join(thread.name for thread in left)}")


def _left_over(before: set[threading.Thread]) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread not in before and not thread.name.startswith(IDLE_WORKER)]


@pytest.fixture
def expect_errors() -> set[str]:
    """Logger names (or their beginnings) that this test expects to log at ERROR: `expect_errors.add("p2psync.daemon")`."""
    return set()


@pytest.fixture(autouse=True)
def no_unexpected_errors(caplog: pytest.LogCaptureFixture, expect_errors: set[str]) -> Iterator[None]:
    """Fail a test during which something was logged at ERROR or above, unless it was expected."""
    yield
    records = [record for phase in ("setup", "call") for record in caplog.get_records(phase)]
    surprises = [record for record in records if record.levelno >= logging.ERROR and not record.name.startswith(tuple(expect_errors))]
    if surprises:
        pytest.fail("unexpected errors in the log:\n" + "\n".join(f"  {record.name}: {record.getMessage()}" for record in surprises))
