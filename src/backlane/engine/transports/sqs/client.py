"""The client: boto3 as far as it is used here, and how it is set up.

Only this file imports boto3. One client has a connection for each of its threads; it does
not retry, for those who call know what a second try may do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from backlane.engine.transports.sqs.address import Address

CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 10.0  # for an answer that waits for nothing; a poll has its wait beside


class Client(Protocol):
    """The calls of SQS that are made: botocore makes each of a method's name and keywords."""

    meta: Any

    def get_queue_url(self, *, QueueName: str) -> Mapping[str, Any]: ...  # noqa: N803

    def create_queue(
        self,
        *,
        QueueName: str,  # noqa: N803
        Attributes: Mapping[str, str],  # noqa: N803
        tags: Mapping[str, str] = ...,
    ) -> Mapping[str, Any]: ...

    def get_queue_attributes(
        self,
        *,
        QueueUrl: str,  # noqa: N803
        AttributeNames: Sequence[str],  # noqa: N803
    ) -> Mapping[str, Any]: ...

    def set_queue_attributes(
        self,
        *,
        QueueUrl: str,  # noqa: N803
        Attributes: Mapping[str, str],  # noqa: N803
    ) -> Mapping[str, Any]: ...

    def list_queues(self, **request: object) -> Mapping[str, Any]: ...

    def send_message_batch(self, **request: object) -> Mapping[str, Any]: ...

    def receive_message(self, **request: object) -> Mapping[str, Any]: ...

    def delete_message_batch(self, **request: object) -> Mapping[str, Any]: ...

    def change_message_visibility_batch(self, **request: object) -> Mapping[str, Any]: ...

    def purge_queue(self, *, QueueUrl: str) -> Mapping[str, Any]: ...  # noqa: N803

    def close(self) -> None: ...


def connect(address: Address, *, threads: int, wait: float = 0.0) -> Client:
    """Return a client for so many threads, whose calls wait for so long at the other end."""
    import boto3
    from botocore.config import Config

    # A session of its own: the default one of boto3 is the application's, and not made
    # for threads.
    client: Client = boto3.session.Session().client(
        "sqs",
        region_name=address.region,
        endpoint_url=address.endpoint,
        aws_access_key_id=address.key,
        aws_secret_access_key=address.secret,
        config=Config(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=ANSWER_SECONDS + wait,
            retries={"mode": "standard", "total_max_attempts": 1},
            max_pool_connections=threads,
            parameter_validation=False,  # a tenth of a call; what we send is made here
            tcp_keepalive=True,
            user_agent_extra="backlane",
        ),
    )
    return client
