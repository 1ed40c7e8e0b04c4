"""Metrics: what is told, in a form that Prometheus reads."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.engine.contract.engines import lay
from tests.gateway.live import Live, live
from tests.hand import fail, succeed, take

from backlane import Backlane, Queue, QueueFull
from backlane.engine.protocol import Presence
from backlane.gateway import tally
from backlane.gateway.exposition import Exposition
from backlane.model.event import JobEnqueued, JobRefused

LINE = re.compile(
    r"^(?P<name>[a-z_]+)(\{(?P<labels>(?:[a-z_]+=\"(?:[^\"\\\n]|\\.)*\",?)*)\})? (?P<value>\S+)$"
)

Figures = dict[tuple[str, str], float]


def read(text: str) -> Figures:
    """Return all figures by name and labels; fail where a line is none."""
    figures: Figures = {}
    families: set[str] = set()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            family = line.split()[2]
            assert family not in families, f"{family} is told twice"
            families.add(family)
        elif not line.startswith("# HELP "):
            found = LINE.match(line)
            assert found, line
            name = found["name"]
            of = re.sub(r"_(bucket|sum|count)$", "", name)
            assert name in families or of in families, line
            key = (name, found["labels"] or "")
            assert key not in figures, f"{key} is told twice"
            figures[key] = float(found["value"])
    return figures


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Backlane]:
    queues = [Queue("default", max_jobs=5, max_wait=30), Queue("other")]
    with Backlane(f"sqlite:///{lay(tmp_path / 'jobs.db')}", queues=queues) as made:
        made.task(double)
        yield made


@pytest.fixture
def served(app: Backlane) -> Iterator[Live]:
    with live(app) as made:
        yield made


def double(number: int) -> int:
    return 2 * number


def scraped(served: Live) -> Figures:
    status, headers, text = served.get("/metrics")
    assert status == 200
    assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return read(text)


def test_depth_bounds_and_counters_are_the_stores(app, served):
    task = next(iter(app.tasks.values()))
    for number in range(3):
        task.enqueue(number)
    succeed(app, 1)
    fail(app)

    told = scraped(served)

    queue = 'queue="default"'
    assert told["backlane_queue_jobs", f'{queue},state="ready"'] == 1
    assert told["backlane_queue_jobs", f'{queue},state="running"'] == 0
    assert told["backlane_queue_max_jobs", queue] == 5
    assert told["backlane_queue_max_wait_seconds", queue] == 30
    assert told["backlane_queue_bytes", queue] > 0
    assert told["backlane_queue_oldest_ready_seconds", queue] >= 0
    assert told["backlane_queue_appended_total", queue] == 3
    assert told["backlane_queue_ended_total", f'{queue},state="succeeded"'] == 1
    assert told["backlane_queue_ended_total", f'{queue},state="failed"'] == 1
    assert told["backlane_queue_pressure", queue] == pytest.approx(0.2)
    assert told["backlane_queue_calibration", queue] == 1.0
    # Nothing was measured twice: no rate is told, rather than a rate of 0.
    assert ("backlane_queue_service_rate", queue) not in told
    assert ("backlane_queue_expected_wait_seconds", queue) not in told


def test_rates_are_told_from_the_second_scrape_on(app, served):
    task = next(iter(app.tasks.values()))
    task.enqueue(1)
    scraped(served)
    time.sleep(1.1)
    task.enqueue(2)

    told = scraped(served)

    assert told["backlane_queue_arrival_rate", 'queue="default"'] > 0


def test_what_is_refused_is_told_by_its_reason(app, served):
    task = next(iter(app.tasks.values()))
    for number in range(5):
        task.enqueue(number)
    with pytest.raises(QueueFull):
        task.enqueue(6)

    status, _, _ = served.ask("POST", f"/v1/tasks/{task.name}/jobs", {"arguments": {"number": 1}})
    told = scraped(served)

    assert status == 503
    assert told["backlane_admitted_jobs_total", 'queue="default"'] == 5
    refused = {labels: value for (name, labels), value in told.items() if "refused" in name}
    assert sum(refused.values()) == 2
    assert all(labels.startswith('queue="default",reason="') for labels in refused)
    route = 'method="POST",route="/v1/tasks/{task}/jobs"'
    assert told["backlane_http_requests_total", f'{route},status="503"'] == 1
    assert told["backlane_http_request_seconds_count", route] == 1
    assert told["backlane_http_request_seconds_bucket", f'{route},le="+Inf"'] == 1


def test_workers_and_open_streams_are_told(app, served):
    task = next(iter(app.tasks.values()))
    present = Presence(owner="a", host="h", pid=1, queues=("default",), slots=20, running=3)
    app.engine.run(app.engine.announce(present))
    followed = served.stream(task.enqueue(1).id)
    followed.event()

    told = scraped(served)

    assert told["backlane_workers", ""] == 1
    assert told["backlane_worker_slots", ""] == 20
    assert told["backlane_worker_running", ""] == 3
    assert told["backlane_http_followers", ""] == 1
    followed.close()


def test_nobody_can_make_up_labels(served):
    for number in range(20):
        served.ask(f"X{number}", "/v1/queues")
        served.get(f"/no/such/{number}")

    told = scraped(served)

    methods = {labels for name, labels in told if name == "backlane_http_requests_total"}
    assert methods <= {'method="other",route="/v1/queues",status="405"'}


def test_queues_are_counted_by_name_up_to_a_bound(monkeypatch):
    monkeypatch.setattr(tally, "MOST_QUEUES", 3)
    counts = tally.Tally()
    for number in range(10):
        counts.saw(JobEnqueued(uuid.UUID(int=number), "task", f"q{number}", is_new=True))
        counts.saw(JobRefused("task", f"q{number}", "jobs", 2))

    told = Exposition("backlane")
    counts.tell(told)
    figures = read(told.encoded().decode())

    admitted = {key: value for key, value in figures.items() if "admitted" in key[0]}
    refused = {key: value for key, value in figures.items() if "refused" in key[0]}
    assert (len(admitted), sum(admitted.values())) == (4, 10)
    assert (len(refused), sum(refused.values())) == (5, 20)


def test_a_queue_that_waits_for_its_jobs_shows_its_age(app, served):
    task = next(iter(app.tasks.values()))
    task.enqueue(1)
    take(app)

    told = scraped(served)

    assert told["backlane_queue_jobs", 'queue="default",state="running"'] == 1
    assert ("backlane_queue_oldest_ready_seconds", 'queue="default"') not in told


@given(st.text(), st.floats(allow_nan=False))
def test_any_label_and_value_can_be_read_back(label, value):
    told = Exposition("x")
    told.family("y", "gauge", label).add(value, queue=label)

    lines = told.encoded().decode().split("\n")

    assert len(lines) == 4
    assert lines[2].startswith('x_y{queue="')
    assert float(lines[2].rpartition(" ")[2]) == value
