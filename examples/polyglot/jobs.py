"""The application: a task that another language asks for, and messages that one reads."""

from __future__ import annotations

import os

from backlane import Backlane, Queue

app = Backlane(
    os.environ.get("BACKLANE_URL", "amqp://guest:guest@127.0.0.1/"),
    queues=[Queue("mail"), Queue("orders")],
)
orders = app.messages("orders")


@app.task(name="send_mail", queue="mail")
async def send_mail(user_id: int, template: str) -> None:
    """Send an order's number on, for whoever reads it in whatever language."""
    await orders.asend(f"user {user_id}: {template}".encode(), headers={"shop": "7"})
    print(f"mail {template!r} for user {user_id}", flush=True)
