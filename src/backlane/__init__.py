"""Asynchronous work for Python that can be trusted: tasks, messages, back pressure."""

from importlib import import_module
from typing import TYPE_CHECKING

from backlane.app import Backlane
from backlane.context import Context, Snooze, current
from backlane.control import QueueHandle
from backlane.enqueuer import Enqueuer
from backlane.errors import (
    BacklaneError,
    BadOption,
    Duplicate,
    EngineBusy,
    EngineUnavailable,
    JobCancelled,
    JobExpired,
    JobFailed,
    JobNotFound,
    KeyReused,
    LeaseLost,
    LimitTimeout,
    NoResult,
    NotSupported,
    OutcomeUnknown,
    QueueFull,
    Refused,
    ResultGone,
    ResultTimeout,
    SchemaMismatch,
    StaleId,
    StoreCorrupt,
    StoreFull,
    StoreMoved,
    TooLarge,
    Undecodable,
    Unencodable,
    UnknownLimit,
    UnknownOption,
    UnknownQueue,
    UnknownResource,
    UnknownSchedule,
    UnknownTask,
    WrongUse,
)
from backlane.handle import JobChange, JobHandle
from backlane.holding import LimitBlock
from backlane.limits import Limits
from backlane.messages import Message, MessageQueue
from backlane.middleware import Call, Middleware, Next
from backlane.model import event as events
from backlane.model.breaker import ResourceRecord
from backlane.model.cron import Cron
from backlane.model.job import AttemptError, JobRecord, Progress, State
from backlane.model.limit import LimitRecord
from backlane.model.limiting import Limit
from backlane.model.outcome import ErrorRecord, Reason
from backlane.model.queue import Queue, QueueRecord
from backlane.model.retry import Retry
from backlane.model.schedule import At, Every
from backlane.resource import ResourceHandle
from backlane.retention import Retention
from backlane.schedules import Schedule, Schedules
from backlane.task import Task
from backlane.transaction import JobTransaction
from backlane.unique import Unique

if TYPE_CHECKING:
    from backlane.model.failure import Failure
    from backlane.node import Node
    from backlane.workflow import Workflow, chain, chord, group
    from backlane.workflow_handle import WorkflowHandle, WorkflowProgress

__all__ = [
    # an application and its parts
    "Backlane",
    "Queue",
    "QueueHandle",
    "QueueRecord",
    "Limit",
    "Limits",
    "LimitBlock",
    "LimitRecord",
    "ResourceHandle",
    "ResourceRecord",
    "Retry",
    "Unique",
    "Retention",
    "Cron",
    "Every",
    "At",
    "Schedule",
    "Schedules",
    "Task",
    "Enqueuer",
    "MessageQueue",
    "Message",
    "Middleware",
    "Call",
    "Next",
    "events",
    # workflows
    "Node",
    "Workflow",
    "WorkflowHandle",
    "WorkflowProgress",
    "Failure",
    "chain",
    "chord",
    "group",
    # a job, from outside and from inside
    "JobHandle",
    "JobChange",
    "JobRecord",
    "State",
    "Reason",
    "Progress",
    "AttemptError",
    "ErrorRecord",
    "Context",
    "JobTransaction",
    "Snooze",
    "current",
    # errors
    "BacklaneError",
    "Refused",
    "QueueFull",
    "Duplicate",
    "StaleId",
    "KeyReused",
    "StoreMoved",
    "Unencodable",
    "TooLarge",
    "Undecodable",
    "UnknownTask",
    "UnknownLimit",
    "UnknownOption",
    "UnknownQueue",
    "UnknownResource",
    "UnknownSchedule",
    "BadOption",
    "WrongUse",
    "NotSupported",
    "JobNotFound",
    "JobFailed",
    "JobCancelled",
    "JobExpired",
    "LimitTimeout",
    "ResultTimeout",
    "ResultGone",
    "NoResult",
    "LeaseLost",
    "OutcomeUnknown",
    "EngineUnavailable",
    "EngineBusy",
    "StoreFull",
    "StoreCorrupt",
    "SchemaMismatch",
]

# Loaded when they are first asked for: an application without workflows starts without them.
_WORKFLOWS = {
    "Failure": "model.failure",
    "Node": "node",
    "Workflow": "workflow",
    "WorkflowHandle": "workflow_handle",
    "WorkflowProgress": "workflow_handle",
    "chain": "workflow",
    "chord": "workflow",
    "group": "workflow",
}


def __getattr__(name: str) -> object:
    if name not in _WORKFLOWS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WORKFLOWS[name]}"), name)
