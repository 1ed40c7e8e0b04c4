"""Rivals: the peers on a server, and its bare loops, as rates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.peer import Peers


@dataclass(frozen=True, slots=True)
class Rivals:
    """All that is compared with on one server."""

    peers: Peers
    url: str
    directory: Path

    def printed(self, module: str, call: str) -> float:
        """Return the rate that a peer's module prints."""
        return float(self.peers.call(f"import {module}; {module}.{call}", {"PEER_URL": self.url}))

    def install(self, module: str) -> None:
        """Let a peer make its tables."""
        self.peers.call(f"import {module}; {module}.install()", {"PEER_URL": self.url})

    def pgqueuer(self, number: int) -> float:
        """Return jobs/s of two processes of pgqueuer."""
        work = [str(self.peers.python), "-c", "import pgqueuer_app; pgqueuer_app.work()"]
        return self.drained("pgqueuer_app", [work, work], number)

    def huey(self, number: int) -> float:
        """Return jobs/s of huey's consumer with two processes."""
        consumer = [
            *(self._command("huey_consumer"), "huey_redis_app.huey"),
            *("--workers", "2", "--worker-type", "process", "--quiet"),
        ]
        return self.drained("huey_redis_app", [consumer], number)

    def taskiq(self, number: int) -> float:
        """Return jobs/s of a taskiq worker with two processes."""
        worker = [
            *(self._command("taskiq"), "worker", "taskiq_app:broker"),
            *("--workers", "2", "--log-level", "ERROR"),
        ]
        return self.drained("taskiq_app", [worker], number)

    def saq(self, number: int) -> float:
        """Return jobs/s of two processes of SAQ."""
        worker = [self._command("saq"), "saq_app.settings", "--workers", "2", "--quiet"]
        return self.drained("saq_app", [worker], number)

    def dramatiq_amqp(self, number: int) -> float:
        """Return jobs/s of a dramatiq worker with two processes on RabbitMQ."""
        worker = [self._command("dramatiq"), "dramatiq_amqp_app", "--processes", "2"]
        return self.drained("dramatiq_amqp_app", [worker], number)

    def taskiq_amqp(self, number: int) -> float:
        """Return jobs/s of a taskiq worker with two processes on RabbitMQ."""
        worker = [
            *(self._command("taskiq"), "worker", "taskiq_amqp_app:broker"),
            *("--workers", "2", "--log-level", "ERROR"),
        ]
        return self.drained("taskiq_amqp_app", [worker], number)

    def celery_amqp(self, number: int) -> float:
        """Return jobs/s of a celery worker with two processes on RabbitMQ."""
        worker = [
            *(str(self.peers.python), "-m", "celery", "-q", "-A", "celery_amqp_app", "worker"),
            *("--concurrency", "2", "--loglevel", "ERROR"),
            *("--without-gossip", "--without-mingle", "--without-heartbeat"),
        ]
        return self.drained("celery_amqp_app", [worker], number)

    def drained(self, module: str, commands: list[list[str]], number: int) -> float:
        """Return jobs/s of these commands, from the first function run to the last."""
        ran = self.directory / f"{module}.ran"
        ran.unlink(missing_ok=True)
        environment = {"PEER_URL": self.url, "PEER_RAN": str(ran)}
        return self.peers.drained(module, commands, environment, ran, number)

    def _command(self, name: str) -> str:
        return str(self.peers.python.parent / name)
