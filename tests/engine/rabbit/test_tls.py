"""TLS, against a real node with certificates that openssl made."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.engine.rabbit.bench import Bench
from tests.servers import rabbitmq
from tests.servers.missing import Missing, give_up
from tests.servers.process import folder_of, free_port

from backlane.engine.transport import Fate
from backlane.errors import EngineUnavailable


def make(folder: Path, name: str, signer: str | None) -> None:
    """Make a key and a certificate, signed by another one or by itself."""
    here = ["-CA", f"{signer}.crt", "-CAkey", f"{signer}.key"] if signer else []
    subject = ["-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    files = ["-keyout", f"{name}.key", "-out", f"{name}.crt"]
    command = ["openssl", "req", "-x509", *key, *files, *subject, *here, "-days", "2"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def tls() -> Iterator[tuple[int, Path]]:
    """A port that speaks TLS, and the folder of the certificates."""
    if shutil.which("openssl") is None:
        give_up("rabbitmq", Missing("install openssl"))
    folder = folder_of(None, "tls")
    for name, signer in (("ca", None), ("server", "ca"), ("stranger", None), ("guest", "ca")):
        make(folder, name, signer)
    folder.chmod(0o755)
    (folder / "server.key").chmod(0o644)  # of a server that is another user
    port = free_port()
    files = {
        "listeners.ssl.1": f"127.0.0.1:{port}",
        "ssl_options.cacertfile": str(folder / "ca.crt"),
        "ssl_options.certfile": str(folder / "server.crt"),
        "ssl_options.keyfile": str(folder / "server.key"),
        "ssl_options.verify": "verify_peer",
        "ssl_options.fail_if_no_peer_cert": "false",
        "ssl_cert_login_from": "common_name",
        "auth_mechanisms.1": "PLAIN",
        "auth_mechanisms.2": "EXTERNAL",
    }
    try:
        node = rabbitmq.Node(**files)
    except Missing as why:
        give_up("rabbitmq", why)
    (node.folder / "plugins").write_text("[rabbitmq_auth_mechanism_ssl].\n")
    try:
        node.start()
        yield port, folder
    finally:
        node.remove()
        shutil.rmtree(folder)


def opened(tls: tuple[int, Path], host: str = "localhost", **options: object) -> Bench:
    return Bench(f"amqps://guest:guest@{host}:{tls[0]}/", **options)


def named(tls: tuple[int, Path], name: str) -> Bench:
    """Return a bench that logs in by a certificate alone."""
    port, folder = tls
    ours = {it: folder / f"{name}.{end}" for it, end in (("cert", "crt"), ("key", "key"))}
    ca = folder / "ca.crt"
    return Bench(f"amqps://localhost:{port}/", ca=ca, auth="certificate", **ours)


def test_messages_go_over_tls(tls: tuple[int, Path]) -> None:
    with contextlib.closing(opened(tls, ca=tls[1] / "ca.crt")) as bench:
        big = b"x" * 300_000  # many records of TLS

        assert bench.publish(big, b"2") == [Fate.CONFIRMED] * 2
        assert bench.bodies(2) == [big, b"2"]


@pytest.mark.parametrize(
    ("host", "ca"), [("localhost", "stranger"), ("localhost", None), ("127.0.0.1", "ca")]
)
def test_whom_nobody_vouches_for_is_not_trusted(
    tls: tuple[int, Path], host: str, ca: str | None
) -> None:
    options = {"ca": tls[1] / f"{ca}.crt"} if ca else {}
    with (
        contextlib.closing(opened(tls, host, **options)) as bench,
        pytest.raises(EngineUnavailable, match="TLS with it fails"),
    ):
        bench.publish(b"1")


def test_anybody_is_trusted_where_that_is_asked_for(tls: tuple[int, Path]) -> None:
    with contextlib.closing(opened(tls, "127.0.0.1", verify="no")) as bench:
        assert bench.publish(b"1") == [Fate.CONFIRMED]


def test_a_certificate_tells_who_we_are(tls: tuple[int, Path]) -> None:
    with contextlib.closing(named(tls, "guest")) as bench:
        assert bench.publish(b"1") == [Fate.CONFIRMED]
        assert bench.bodies(1) == [b"1"]


def test_a_certificate_of_nobody_the_broker_knows_is_refused(tls: tuple[int, Path]) -> None:
    with (
        contextlib.closing(named(tls, "server")) as bench,
        pytest.raises(EngineUnavailable, match="refuses the login"),
    ):
        bench.publish(b"1")
