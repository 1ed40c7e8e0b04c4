"""PgBouncer in transaction mode before a PostgreSQL server, as it is often found."""

from __future__ import annotations

import shutil
from functools import cache
from urllib.parse import urlsplit

from tests.servers import postgres
from tests.servers.missing import Missing
from tests.servers.process import Process, folder_of, free_port, humble_user, listens

INSTALL = "install PgBouncer (Debian: apt install pgbouncer)"


class PgBouncer:
    """A pooler of our own in front of a server."""

    def __init__(self, to: str) -> None:
        program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
        if program is None:
            raise Missing(INSTALL)
        self.port = free_port()
        server = urlsplit(to)
        user = humble_user()
        folder = folder_of(user, "pool")
        (folder / "users").write_text('"postgres" ""\n')
        (folder / "ini").write_text(
            "[databases]\n"
            f"* = host={server.hostname} port={server.port}\n"
            "[pgbouncer]\n"
            "pool_mode = transaction\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = trust\nauth_file = {folder / 'users'}\n"
            "max_client_conn = 500\ndefault_pool_size = 20\n"
            "log_connections = 0\nlog_disconnections = 0\n"
        )
        self.process = Process(
            command=[program, str(folder / "ini")],
            folder=folder,
            ready=lambda: listens(self.port),
            user=user,
        )

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"


@cache
def pooled() -> str:
    """The URL of the newest server's pooler, for all tests of the session."""
    pooler = PgBouncer(postgres.newest().url)
    pooler.process.start()
    return pooler.url
