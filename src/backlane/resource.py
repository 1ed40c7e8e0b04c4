"""Resources: what tasks depend on, and the grip that pauses their jobs by hand."""

from __future__ import annotations

from backlane.engine.plan import Plan
from backlane.engine.protocol import Close, Open
from backlane.errors import UnknownResource
from backlane.model.breaker import ResourceRecord, Standing
from backlane.model.event import Observers, ResourceChanged
from backlane.model.queue import checked_name
from backlane.model.retry import Duration, milliseconds
from backlane.place import Place


class ResourceHandle:
    """A resource as the store has it: `app.resource(name)`. It keeps nothing that it read.

    Its breaker opens and closes by itself, by what becomes of attempts; here it is
    looked at, and told what nobody could find out by trying.

    .. versionadded:: 0.1
    """

    __slots__ = ("_observers", "_place", "name")

    def __init__(self, name: str, place: Place, observers: Observers) -> None:
        self.name = checked_name(name, "resource")
        self._place = place
        self._observers = observers

    def __repr__(self) -> str:
        return f"<ResourceHandle {self.name}>"

    def record(self) -> ResourceRecord:
        """Read how it stands; one that no job ever depended on is closed: work runs."""
        engine = self._place.engine
        return self._mine(engine.run(engine.list_resources()))

    async def arecord(self) -> ResourceRecord:
        """Like `record`."""
        engine = self._place.engine
        return self._mine(await engine.arun(engine.list_resources()))

    def open(self, lasting: Duration | None = None) -> ResourceRecord:
        """Let its jobs wait: for so long, then a few are tried; or until it is closed.

        Enqueues are stored all the same, and what runs already runs on.

        Raises:
            UnknownResource: no job was ever enqueued that depends on it.
            BadOption: this is not a duration.
        """
        return self._steered(self._place.engine.run(self._opening(lasting)))

    async def aopen(self, lasting: Duration | None = None) -> ResourceRecord:
        """Like `open`."""
        return self._steered(await self._place.engine.arun(self._opening(lasting)))

    def close(self) -> ResourceRecord:
        """Let its jobs run, and forget what was counted; see `open` for errors."""
        return self._steered(self._place.engine.run(self._closing()))

    async def aclose(self) -> ResourceRecord:
        """Like `close`."""
        return self._steered(await self._place.engine.arun(self._closing()))

    def _opening(self, lasting: Duration | None) -> Plan[ResourceRecord | None]:
        for_ms = None if lasting is None else milliseconds(lasting, "lasting")
        return self._place.engine.steer(self.name, Open(for_ms))

    def _closing(self) -> Plan[ResourceRecord | None]:
        return self._place.engine.steer(self.name, Close())

    def _steered(self, record: ResourceRecord | None) -> ResourceRecord:
        if record is None:
            raise UnknownResource(
                f"the store holds no resource {self.name!r}: it is made by the first job of a "
                f"task with resource={self.name!r}"
            )
        if self._observers:
            self._observers.tell(ResourceChanged(self.name, record.state, record.reason))
        return record

    def _mine(self, records: list[ResourceRecord]) -> ResourceRecord:
        found = [record for record in records if record.name == self.name]
        return found[0] if found else ResourceRecord(name=self.name, state=Standing.CLOSED)
