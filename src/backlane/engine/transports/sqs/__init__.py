"""Amazon SQS, or an endpoint that is like it, as a transport: through boto3, in threads.

Calls carry ten messages where they can. A message may come twice and out of turn; how
long it stays ours is its visibility timeout. No exchange of words with SQS leaves this
folder: queues are made when first named, and their URLs and receipt handles are ours.
"""

from importlib.util import find_spec

from backlane.engine.transport import Transport
from backlane.engine.transports.sqs.address import parse
from backlane.engine.transports.sqs.transport import SqsTransport
from backlane.errors import NotSupported

__all__ = ["SqsTransport", "open_url"]


def open_url(url: str) -> Transport:
    """Return the transport for a URL such as `sqs://eu-central-1`, not connected yet.

    Raises:
        BadOption: a part of the URL is missing, or has a value that cannot work.
        UnknownOption: it has an option that does not exist.
        NotSupported: boto3 is not installed.
    """
    if find_spec("boto3") is None:
        raise NotSupported("Amazon SQS needs boto3: pip install 'backlane[sqs]'")
    return SqsTransport(parse(url))
