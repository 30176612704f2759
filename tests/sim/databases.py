"""SQLite over a modelled disk: its own files do not pass through ``os``, but each commit is a step."""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import suppress
from typing import Any

from tests.sim.device import Disk
from tests.sim.kernel import Kernel
from tests.sim.real import real

_WRITES = ("INSERT", "UPDATE", "DELETE", "REPLACE", "CREATE", "DROP", "ALTER")


def connecting(kernel: Kernel) -> Any:
    """What stands in for ``sqlite3.connect``."""

    class Connection(sqlite3.Connection):
        def __init__(self, database: Any, *args: Any, **more: Any) -> None:
            self._whole = os.fsdecode(database)
            self._place = kernel.of(self._whole)
            self._is_new = True
            if self._place is not None:
                try:
                    self._place.disk.look("open", self._whole)
                except OSError as error:
                    raise _failure(error) from None
            super().__init__(database, *args, **more)
            if self._place is not None and self._place.disk.serving:
                self._place.disk.connections.add(self)

        def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
            if self._place is None or not self._commits(sql):
                return super().execute(sql, *args)
            self._begin()
            done = super().execute(sql, *args)
            self._place.disk.done()
            return done

        def executescript(self, sql: str) -> sqlite3.Cursor:
            if self._place is None:
                return super().executescript(sql)
            self._begin()
            done = super().executescript(sql)
            self._place.disk.done()
            return done

        def close(self) -> None:
            if self._place is not None:
                self._place.disk.connections.discard(self)
            super().close()

        def _commits(self, sql: str) -> bool:
            return sql == "COMMIT" or (not self.in_transaction and sql.lstrip()[:7].upper().startswith(_WRITES))

        def _begin(self) -> None:
            assert self._place is not None
            disk = self._place.disk
            if self._is_new:
                self._is_new = False
                self._begin_first(disk)
            if disk.serving and super().execute("PRAGMA synchronous").fetchone()[0] < 2:
                raise AssertionError(f"a commit that a power cut may undo: {self._whole}")
            try:
                disk.step("commit", self._whole, grows=True)
            except OSError as error:
                raise _failure(error) from None

        def _begin_first(self, disk: Disk) -> None:
            """SQLite syncs the folder with its journal at the first commit of a connection."""
            with suppress(OSError):
                node = disk.node(real.stat(self._whole))
                node.is_database = True
                disk.volatile.forget(node)
                disk.volatile.sync(disk.node(real.stat(os.path.dirname(self._whole))))

    def connect(database: Any, *args: Any, **more: Any) -> sqlite3.Connection:
        more.setdefault("factory", Connection)
        return real.connect(database, *args, **more)  # type: ignore[no-any-return]

    return connect


def _failure(error: OSError) -> sqlite3.OperationalError:
    code, text = sqlite3.SQLITE_IOERR, "disk I/O error"
    if error.errno == errno.ENOSPC:
        code, text = sqlite3.SQLITE_FULL, "database or disk is full"
    failed = sqlite3.OperationalError(text)
    failed.sqlite_errorcode = code
    return failed
