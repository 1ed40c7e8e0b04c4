"""The polyglot example: programs without backlane on both sides of one that has it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tests.servers import rabbitmq, sqs
from tests.servers.missing import Missing, give_up

from backlane import Backlane
from backlane.engine.transports.name import physical
from backlane.engine.transports.sqs.naming import sqs_name
from backlane.testing import testing

ROOT = Path(__file__).resolve().parents[2]


def python(url: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env={**os.environ, "BACKLANE_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_program_without_backlane_sends_a_task_and_reads_a_message(tmp_path: Path) -> None:
    try:
        broker = rabbitmq.url()
    except Missing as why:
        give_up("rabbitmq", why)
    prefix = rabbitmq.prefix()
    url = f"{broker}?prefix={prefix}"
    log = tmp_path / "log"
    with log.open("w") as out, contextlib.ExitStack() as stack:
        worker = subprocess.Popen(
            [sys.executable, "-m", "backlane", "worker", "examples.polyglot.jobs:app"],
            cwd=ROOT,
            env={**os.environ, "BACKLANE_URL": url},
            stdout=out,
            stderr=out,
        )
        stack.callback(worker.wait, 20)
        stack.callback(worker.terminate)
        until(lambda: "ready after" in log.read_text(), log)

        python(url, "examples.polyglot.producer", broker, "welcome", "7", f"{prefix}.1.mail")
        until(lambda: "mail 'welcome' for user 7" in log.read_text(), log)
        said = ""
        end = time.monotonic() + 10
        while not said and time.monotonic() < end:
            said = python(url, "examples.polyglot.consumer", broker, f"{prefix}.1.orders")

    assert json.loads(said) == {"body": "user 7: welcome", "headers": {"shop": "7"}}


def test_a_plain_client_of_sqs_sends_a_task_and_reads_a_message() -> None:
    try:
        endpoint = sqs.newest()
    except Missing as why:
        give_up("sqs", why)
    prefix = sqs.prefix()
    app = Backlane(f"{endpoint}?prefix={prefix}&wait=1")
    orders, mail = app.messages("orders"), app.messages("mail")
    plain = sqs.client(endpoint)
    with app:
        orders.send(b"user 7", headers={"shop": "7"})
        mail.receive()  # makes the queue
        there = {url.rsplit("/", 1)[1]: url for url in plain.list_queues()["QueueUrls"]}
        plain.send_message(
            QueueUrl=there[sqs_name(physical(prefix, "mail"))], MessageBody="from afar"
        )

        [message] = mail.receive(wait=10)
        read = plain.receive_message(
            QueueUrl=there[sqs_name(physical(prefix, "orders"))],
            MessageAttributeNames=["All"],
            WaitTimeSeconds=5,
        )["Messages"][0]

    assert message.body == b"from afar"
    assert read["Body"] == "user 7"
    assert read["MessageAttributes"]["shop"]["StringValue"] == "7"


def until(holds, log: Path, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.05)


def test_the_task_runs_in_a_test_without_a_broker() -> None:
    from examples.polyglot import jobs

    with testing(jobs.app) as kit:
        jobs.send_mail.enqueue(7, template="welcome")
        kit.drain()
        [message] = jobs.orders.receive()

    assert message.body == b"user 7: welcome"
