"""A clinic: a server of its own that is brought into bad states, and the doctor there."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import psycopg
from tests.servers.postgres import PostgresServer, binaries
from tests.servers.process import humble_user

from backlane.engine.postgres.doctor.examination import diagnose
from backlane.engine.postgres.doctor.limits import Limits
from backlane.engine.postgres.store.address import parse
from backlane.engine.protocol import Finding
from backlane.model.clock import Clock, SystemClock

# What a standby must have as large as its primary.
FOLLOWING = {"max_prepared_transactions": "5", "max_connections": "40"}


class Clinic:
    """A server, and what is done to it."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server

    def connect(self, **options: str) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(self.server.url, autocommit=True, **options)

    def say(self, text: str) -> list[tuple[Any, ...]]:
        """Run a statement as the superuser."""
        with self.connect() as connection:
            cursor = connection.execute(text.encode())
            return cursor.fetchall() if cursor.description else []

    def findings(
        self, subject: str, *, clock: Clock | None = None, url: str = "", **limits: Any
    ) -> list[Finding]:
        """What the doctor says of a subject."""
        found = diagnose(parse(url or self.server.url), clock or SystemClock(), Limits(**limits))
        return [one for one in found if one.subject == subject]

    def finding(self, subject: str, **fields: Any) -> Finding:
        (found,) = self.findings(subject, **fields)
        return found

    def is_well(self, subject: str, **fields: Any) -> bool:
        return [one.state for one in self.findings(subject, **fields)] == ["ok"]

    def obey(self, finding: Finding) -> None:
        """Do what the doctor says."""
        assert finding.remedy is not None, finding
        for statement in finding.remedy.split("; "):
            self.say(statement)

    @contextlib.contextmanager
    def set_to(self, name: str, value: str) -> Iterator[None]:
        """Have a setting for the whole server, until it is mended or the block ends."""
        before = self.say(f"show {name}")[0][0]
        self.say(f"alter system set {name} = '{value}'")
        self.reload(name, value)
        try:
            yield
        finally:
            self.say(f"alter system reset {name}")
            self.reload(name, before)

    def reload(self, name: str, value: str) -> None:
        self.say("select pg_reload_conf()")
        self.wait_for(f"current_setting('{name}') = '{value}'")

    def wait_for(self, condition: str, seconds: float = 10) -> None:
        """Wait until a condition holds that the server can judge."""
        limit = time.monotonic() + seconds
        while not self.say(f"select coalesce({condition}, false)")[0][0]:
            assert time.monotonic() < limit, f"it never came to be that {condition}"
            time.sleep(0.02)

    @contextlib.contextmanager
    def followed(self, name: str, **settings: str) -> Iterator[PostgresServer]:
        """Run a standby of this server for as long as a block lasts."""
        version = int(self.say("show server_version_num")[0][0]) // 10000
        follower = PostgresServer(binaries(version), {**FOLLOWING, **settings})
        shutil.rmtree(follower.data)
        url = f"{self.server.url}?application_name={name}"
        subprocess.run(
            [
                *(str(binaries(version) / "pg_basebackup"), "-D", str(follower.data)),
                *("-d", url, "-R", "--checkpoint=fast", "--no-sync"),
            ],
            user=humble_user(),
            check=True,
            capture_output=True,
        )
        try:
            follower.start()
            yield follower
        finally:
            follower.process.remove()
