"""Read raw messages that an application sent, as a program that knows nothing of backlane does.

python -m examples.polyglot.consumer amqp://guest:guest@127.0.0.1/
"""

from __future__ import annotations

import json
import sys

from examples.polyglot.plain import Plain

QUEUE = "backlane.1.orders"


def main(url: str, queue: str = QUEUE) -> None:
    """Print every message that waits, one a line: its body, and the sender's headers."""
    broker = Plain(url)
    while (got := broker.get(queue)) is not None:
        content, headers, tag = got
        # The header `backlane` has the id and when it was sent; those with x- are the broker's.
        own = {k: v for k, v in headers.items() if k != "backlane" and not k.startswith("x-")}
        print(json.dumps({"body": content.decode(), "headers": own}))
        broker.ack(tag)
    broker.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
