"""The store as the writer has it: one connection, the gate before it, the state at open."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import apsw

from backlane.engine.sqlite.store.connection import Database, read_boot_id
from backlane.engine.sqlite.store.fork import inside_sqlite
from backlane.engine.sqlite.store.gate import Gate
from backlane.engine.sqlite.store.log import Log
from backlane.engine.sqlite.store.migrations import migrate, newest, version

# A page that stays the same would not be written, and a commit of nothing not be synced.
COUNT_SYNC = """
insert into backlane_meta (name, value)
values ('syncs', 1)
on conflict do update
set value = value + 1
"""


class Store:
    """One process's connection for writing, opened at first use and again when it broke."""

    def __init__(
        self,
        database: Database,
        *,
        on_log: Callable[[int], None],
        boot_id: Callable[[], str] = read_boot_id,
    ) -> None:
        self.database = database
        self.gate = Gate(database.side / "gate")
        self._log = Log(database.path)
        self.migrated: list[str] = []  # when this process opened the file
        self._on_log = on_log
        self._boot_id = boot_id
        self._connection: apsw.Connection | None = None
        self._was_open = False
        self._is_synced = True

    def begin(self, *, is_synced: bool = True) -> apsw.Connection:
        """Open a transaction; the gate is held until the caller releases it.

        Its commit is not waited for to be on the disk unless it `is_synced`; the next
        one that is brings it there as well.

        Raises:
            EngineBusy: another transaction was open for too long; the gate is free again.
        """
        connection = self._connection or self._open()
        self.gate.acquire()
        try:
            if is_synced is not self._is_synced:
                self._set_synced(connection, is_synced=is_synced)
            self.database.begin(connection)
        except BaseException as error:
            self.gate.release()
            if not isinstance(error, apsw.BusyError):
                self.drop()
            raise
        if self._log.is_short:
            self._log.grow()
        return connection

    def sync(self) -> None:
        """Bring all that was committed to the disk, by one more commit."""
        connection = self.begin()
        try:
            connection.execute(COUNT_SYNC)
            connection.execute("commit")
        except BaseException:
            self.roll_back(is_broken=True)
            raise
        finally:
            self.gate.release()

    def open(self) -> None:
        """Open the file, if it is not open."""
        if self._connection is None:
            self._open()

    def roll_back(self, *, is_broken: bool) -> None:
        """End the transaction without a trace; give the connection up if it is broken."""
        connection = self._connection
        if connection is not None and connection.in_transaction:
            try:
                connection.execute("rollback")
            except apsw.Error:  # SQLite ended it, or cannot: closing ends it too
                is_broken = True
        if is_broken:
            self.drop()

    def drop(self) -> None:
        """Give the connection up; the next use opens a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with inside_sqlite, contextlib.suppress(apsw.Error):
                connection.close(force=True)

    def close(self) -> None:
        """Let go of the file."""
        self.drop()
        self.gate.close()

    def handles(self) -> list[apsw.Connection]:
        """Return what a forked child has to abandon."""
        return [self._connection] if self._connection is not None else []

    def _open(self) -> apsw.Connection:
        if not self._was_open:  # later a missing file is a loss, not a fresh start
            self.database.make()
        self.gate.acquire()
        try:
            with inside_sqlite:
                connection = self.database.connect()
                try:
                    self._bring_up_to_date(connection)
                except BaseException:
                    connection.close(force=True)
                    raise
        finally:
            self.gate.release()
        connection.set_wal_hook(self._saw_log)
        self._is_synced = True
        self._connection = connection
        self._was_open = True
        return connection

    def _bring_up_to_date(self, connection: apsw.Connection) -> None:
        """Migrate, and look whether the machine was started anew.

        Where neither is needed nothing is locked: who opens a file to read does not wait
        until the transaction of a caller ends.
        """
        boot, found = self._boot_id(), []
        self.database.patiently(lambda: found.append(self._stands_at(connection)))
        if found == [(newest(), boot)]:
            return
        self.database.begin(connection)
        self.migrated += migrate(connection, self.database.name)
        if self._stands_at(connection)[1] != boot:
            _forget_boot(connection, boot)
        connection.execute("commit")

    def _stands_at(self, connection: apsw.Connection) -> tuple[int, object]:
        """Return the file's schema, and the start of the machine that it knows of."""
        schema = version(connection, self.database.name)
        if not schema:
            return 0, None
        stored = connection.execute("select value from backlane_meta where name = 'boot'")
        return schema, next((value for (value,) in stored), None)

    def _set_synced(self, connection: apsw.Connection, *, is_synced: bool) -> None:
        connection.pragma("synchronous", self.database.durability if is_synced else "normal")
        self._is_synced = is_synced

    def _saw_log(self, _: apsw.Connection, __: str, pages: int) -> int:
        self._log.saw(pages)
        self._on_log(pages)
        return apsw.SQLITE_OK


def _forget_boot(connection: apsw.Connection, boot: str) -> None:
    """The machine was started anew: its clock too, and nobody holds a lease any more."""
    connection.execute("update backlane_lease set until_ms = 0")
    connection.execute("delete from backlane_worker")
    connection.execute("update backlane_schedule set declared_ms = null")
    connection.execute("update backlane_acquired set until_ms = 0")
    connection.execute(
        "update backlane_gate_queue set open_ms = 0, open_wall_ms = 0 where open_ms is not null"
    )
    connection.execute(
        """
        update backlane_meta
        set value = case when exists (select 1 from backlane_lease) then 0 end
        where name = 'lapse_ms'
        """
    )
    connection.execute("update backlane_meta set value = ? where name = 'boot'", (boot,))
