"""The client of the gateway: jobs over HTTP, with back pressure that is obeyed.

It needs httpx2 (`pip install backlane[client]`), and neither the application nor its
store: a submission names the task and gives its arguments by name.
"""

from backlane.client.asynchronous import (
    AsyncClient,
    AsyncRemoteJob,
    AsyncRemoteMessages,
    AsyncRemoteQueue,
)
from backlane.client.blocking import Client, RemoteJob, RemoteMessages, RemoteQueue
from backlane.client.record import (
    RemoteError,
    RemoteMessage,
    RemoteProgress,
    RemoteQueueRecord,
    RemoteRecord,
)

__all__ = [
    "Client",
    "RemoteJob",
    "RemoteQueue",
    "RemoteMessages",
    "AsyncClient",
    "AsyncRemoteJob",
    "AsyncRemoteQueue",
    "AsyncRemoteMessages",
    "RemoteRecord",
    "RemoteProgress",
    "RemoteError",
    "RemoteMessage",
    "RemoteQueueRecord",
]
