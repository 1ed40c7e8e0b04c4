"""The worker: what claims jobs, runs them and settles them.

`Worker` embeds one in a process of yours; `supervisor.Supervisor` is what
`backlane worker module:app` runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backlane.worker.embedded import Worker

__all__ = ["Worker"]


def __getattr__(name: str) -> Any:
    # Loaded on demand: an executor is a fresh process that must start fast, and this
    # file is imported on its way to `worker.executor`.
    if name == "Worker":
        from backlane.worker.embedded import Worker

        return Worker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
