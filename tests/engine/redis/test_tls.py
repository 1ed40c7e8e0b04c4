"""TLS, against a real server with certificates that openssl made."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.engine.contract.desk import SUCCEEDED, Desk
from tests.servers import redis as servers
from tests.servers.missing import Missing, give_up
from tests.servers.process import free_port

from backlane.engine.protocol import Admission, Wanted
from backlane.engine.redis import RedisEngine
from backlane.errors import EngineUnavailable
from backlane.model.clock import SystemClock


def make(folder: Path, name: str, signer: str | None) -> None:
    """Make a key and a certificate, signed by another one or by itself."""
    here = ["-CA", f"{signer}.crt", "-CAkey", f"{signer}.key"] if signer else []
    subject = ["-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    files = ["-keyout", f"{name}.key", "-out", f"{name}.crt"]
    command = ["openssl", "req", "-x509", *key, *files, *subject, *here, "-days", "2"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """A port that speaks TLS, and the folder of the certificates.

    Of Debian's Redis: Valkey from the wheel was built without.
    """
    if shutil.which("openssl") is None:
        give_up("redis", Missing("install openssl"))
    folder = tmp_path_factory.mktemp("tls")
    for name, signer in (("ca", None), ("server", "ca"), ("client", "ca"), ("stranger", None)):
        make(folder, name, signer)
    port = free_port()
    files = {
        "tls_cert_file": str(folder / "server.crt"),
        "tls_key_file": str(folder / "server.key"),
        "tls_ca_cert_file": str(folder / "ca.crt"),
    }
    try:
        with servers.started(7, tls_port=str(port), **files):  # it asks clients for theirs
            yield port, folder
    except Missing as why:
        give_up("redis", why)


def opened(tls: tuple[int, Path], ca: str, more: str, host: str = "localhost") -> RedisEngine:
    port, folder = tls
    return RedisEngine(f"rediss://{host}:{port}?ca={folder}/{ca}.crt&{more}")


def test_jobs_and_bells_go_over_tls(tls: tuple[int, Path]) -> None:
    own = f"cert={tls[1]}/client.crt&key={tls[1]}/client.key"
    engine = opened(tls, "ca", own)
    desk = Desk(engine, SystemClock())  # type: ignore[arg-type] # the server's own time
    big = b"x" * 300_000  # many records of TLS
    bell = engine.listen(["mail"])
    while bell.heard(1):  # until the channel is confirmed
        pass
    threading.Timer(0.2, lambda: desk.add(body=big)).start()

    assert bell.heard(10)
    (lease,) = engine.run(engine.claim(Wanted("ann", 1, 60_000, ("mail",)))).leases
    assert lease.body == big
    desk.settle(lease, SUCCEEDED)
    bell.close()
    engine.close()


def test_a_loop_speaks_tls_too(tls: tuple[int, Path]) -> None:
    own = f"cert={tls[1]}/client.crt&key={tls[1]}/client.key&namespace=loop"
    engine = opened(tls, "ca", own)
    desk = Desk(engine, SystemClock())  # type: ignore[arg-type] # the server's own time
    jobs = [desk.job(body=b"x" * 100_000) for _ in range(20)]

    async def call() -> bool:
        bell = engine.listen(["mail"])
        while await bell.aheard(1):
            pass
        await engine.arun(engine.append(jobs, Admission()))
        has_rung = await bell.aheard(5)
        bell.close()
        leases = await engine.arun(engine.claim(Wanted("ann", 50, 60_000, ("mail",))))
        assert [len(it.body) for it in leases.leases] == [100_000] * 20
        return has_rung

    assert asyncio.run(call())
    engine.close()


@pytest.mark.parametrize(
    ("ca", "more", "host"),
    [
        ("stranger", "cert={0}/client.crt&key={0}/client.key", "localhost"),
        ("ca", "cert={0}/client.crt&key={0}/client.key", "127.0.0.1"),
        ("ca", "cert={0}/stranger.crt&key={0}/stranger.key", "localhost"),
        ("ca", "", "localhost"),
    ],
    ids=["another authority", "another name", "a stranger's certificate", "no certificate"],
)
def test_who_cannot_be_trusted_is_refused(tls: tuple[int, Path], ca: str, more: str, host: str):
    engine = opened(tls, ca, more.format(tls[1]), host)
    with pytest.raises(EngineUnavailable):
        engine.run(engine.list_queues())
    engine.close()
