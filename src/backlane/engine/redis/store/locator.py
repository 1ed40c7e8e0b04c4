"""Where the server is that has our keys: at a fixed place, or as sentinels or a cluster say."""

from __future__ import annotations

import binascii
import threading

from backlane.engine.redis.store.address import Address
from backlane.engine.redis.store.connection import Connection, open_connection
from backlane.engine.redis.store.faults import Said
from backlane.errors import EngineUnavailable

SLOTS = 16_384


class Locator:
    """Opens connections to the server that has the keys of one namespace.

    All its keys share one slot, so in a cluster it is one node as well: what it takes to
    be on a cluster is to know which, and to go where a node says that the slot has moved.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._slot = binascii.crc_hqx(address.namespace.encode(), 0) % SLOTS
        self._lock = threading.Lock()
        self._nodes: list[tuple[str, int]] = list(address.hosts)
        self._owner: tuple[str, int] | None = None  # of the slot

    def open(self) -> Connection:
        """Connect to the server that takes writes.

        Raises:
            EngineUnavailable: none can be reached, or none takes writes now.
        """
        match self._address.kind:
            case "cluster":
                return self._open_owner()
            case "sentinel":
                return self._open_master()
            case _:
                target = None if self._address.path else self._address.hosts[0]
                return open_connection(self._address, target)

    def moved(self, to: str) -> None:
        """Note where a node says the slot is now: `host:port`."""
        host, _, port = to.rpartition(":")
        with self._lock:
            if host:
                self._owner = (host, int(port))

    def visit(self, to: str) -> Connection:
        """Connect to a node that another one names: `host:port`."""
        host, _, port = to.rpartition(":")
        return open_connection(self._address, (host, int(port)))

    def lost(self) -> None:
        """Look anew next time: the server is away, or no longer the one that writes."""
        with self._lock:
            self._owner = None

    def _open_owner(self) -> Connection:
        with self._lock:
            owner, nodes = self._owner, list(self._nodes)
        if owner is not None:
            try:
                return open_connection(self._address, owner)
            except EngineUnavailable:
                self.lost()
        last: Exception | None = None
        for node in nodes:
            try:
                found = self._look_it_up(node)
                if found is not None:
                    return open_connection(self._address, found)
            except EngineUnavailable as error:
                last = error
        names = ", ".join(f"{host}:{port}" for host, port in nodes)
        raise EngineUnavailable(
            f"no node of the cluster ({names}) could be asked, or the one that has the keys of "
            f"namespace {self._address.namespace!r} is away: {last or 'nobody has its slot'}"
        )

    def _look_it_up(self, node: tuple[str, int]) -> tuple[str, int] | None:
        """Ask a node who has the slot, and who else there is."""
        connection = open_connection(self._address, node)
        try:
            ranges = connection.ask("CLUSTER", "SLOTS")
        except Said as said:
            raise EngineUnavailable(f"{connection.place} is not of a cluster: {said}") from None
        except OSError as error:
            raise EngineUnavailable(f"{connection.place} was lost: {error}") from error
        finally:
            connection.disconnect()
        found, nodes = None, set(self._address.hosts)
        for first, last, *servers in ranges:
            its = [((it[0] or b"").decode() or node[0], int(it[1])) for it in servers]
            nodes.update(its)
            if first <= self._slot <= last:
                found = its[0]
        with self._lock:
            self._nodes, self._owner = sorted(nodes), found
        return found

    def _open_master(self) -> Connection:
        last: Exception | None = None
        for sentinel in self._address.hosts:
            try:
                found = self._ask_sentinel(sentinel)
                if found is None:
                    continue
                connection = open_connection(self._address, found)
                if _is_master(connection):
                    return connection
                connection.disconnect()
                last = EngineUnavailable(
                    f"{connection.place} is a replica: a fail-over is under way"
                )
            except EngineUnavailable as error:
                last = error
        raise EngineUnavailable(
            f"no sentinel names a master {self._address.master!r} that takes writes: "
            f"{last or 'none of them knows that name'}"
        )

    def _ask_sentinel(self, sentinel: tuple[str, int]) -> tuple[str, int] | None:
        connection = open_connection(self._address, sentinel, is_sentinel=True)
        try:
            found = connection.ask(
                "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._address.master or ""
            )
        except Said as said:
            raise EngineUnavailable(f"{connection.place} is no sentinel: {said}") from None
        except OSError as error:
            raise EngineUnavailable(f"{connection.place} was lost: {error}") from error
        finally:
            connection.disconnect()
        return None if found is None else (found[0].decode(), int(found[1]))


def _is_master(connection: Connection) -> bool:
    try:
        return bool(connection.ask("ROLE")[0] == b"master")
    except Said:
        return True  # not allowed to ask: a write will tell
    except OSError as error:
        raise EngineUnavailable(f"{connection.place} was lost: {error}") from error
