"""Send a task, as a program that knows nothing of backlane does.

python -m examples.polyglot.producer amqp://guest:guest@127.0.0.1/ welcome 7
"""

from __future__ import annotations

import json
import sys
import uuid

from examples.polyglot.plain import Plain

QUEUE = "backlane.1.mail"  # prefix, version of the set-up, name of the queue


def main(url: str, template: str, user_id: str, queue: str = QUEUE) -> None:
    """Publish one letter; see docs/wire-format.md."""
    job = str(uuid.uuid4())
    letter = {
        "id": job,
        "task": "send_mail",
        "args": {"user_id": int(user_id), "template": template},
    }
    broker = Plain(url)
    broker.publish(queue, json.dumps(letter).encode(), {}, job)
    broker.close()
    print(job)


if __name__ == "__main__":
    main(*sys.argv[1:])
