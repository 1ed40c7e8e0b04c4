"""Thousands of requests made up from the OpenAPI document: none breaks its word."""

from __future__ import annotations

import os
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.internal.conjecture import providers
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.gateway import kinds
from tests.gateway.live import Live, live
from tests.hand import fail, succeed, take

from backlane import Backlane, group
from backlane.engine.limiting import Declared
from backlane.gateway import jobs, messages, openapi, tasks
from backlane.gateway.application import RULES
from backlane.model.limit import Limit, Rate

CHECKS = (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
IS_PROOF = os.environ.get("BACKLANE_PROVE") == "1"
EXAMPLES = 300 if IS_PROOF else 20  # of each operation
SEED = random.randrange(2**32) if IS_PROOF else 20_260_301

schema = schemathesis.openapi.from_dict(
    openapi.document(RULES, kinds.make("memory://"), has_tokens=False, root="")
)


class Site:
    """The served application, and jobs of each state to ask for."""

    def __init__(self, app: Backlane, served: Live) -> None:
        self.served = served
        self.statuses: Counter[tuple[str, int]] = Counter()
        self._jobs = [app.tasks["nothing"].enqueue().id for _ in range(20)]
        for _ in range(4):
            succeed(app, None)
            fail(app)
        take(app, number=3)
        for job in self._jobs[-3:]:
            app.job(job).cancel()
        app.messages("letters").send(b"hello")
        app.engine.run(app.engine.regulate("stripe", Declared(Limit(1, Rate(10, 60_000)))))
        nothing = app.tasks["nothing"]
        self._workflow = str(group([nothing.node(), nothing.node()]).enqueue().id)
        self._app = app
        self._randoms: defaultdict[str, random.Random] = defaultdict(lambda: random.Random(1))

    def lead(self, case: schemathesis.Case) -> None:
        """Mostly ask for what is there, or all answers were 404."""
        path = case.path_parameters or {}
        drawn = self._randoms[f"{case.method} {case.path}"]
        if drawn.random() < 0.1:
            return
        if "job" in path:
            path["job"] = str(drawn.choice(self._jobs))
        if "workflow" in path:
            path["workflow"] = self._workflow
        if "limit" in path:
            path["limit"] = "stripe"
        if "schedule" in path:
            path["schedule"] = "hourly"
            self._app.schedules.put("hourly", timedelta(hours=1), self._app.tasks["nothing"])
        if "queue" in path:
            is_of_messages = case.path.rpartition("/")[2] in (
                "messages", "receive", "ack", "release", "extend",
            )  # fmt: skip
            path["queue"] = "letters" if is_of_messages else "default"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    file: Path = tmp_path_factory.mktemp("schemathesis") / "jobs.db"
    patch = pytest.MonkeyPatch()
    # Hypothesis tries constants of all modules that are loaded, which differ by what tests
    # ran before: with them a seed would not mean the same requests.
    patch.setattr(providers, "_get_local_constants", lambda: providers.Constants())
    providers.CONSTANTS_CACHE.cache.clear()
    for module in (jobs, tasks, messages):
        patch.setattr(module, "WAIT_SECONDS", 0.02)
    with kinds.make(f"sqlite:///{file}") as app, live(app) as served:
        yield Site(app, served)
    patch.undo()
    providers.CONSTANTS_CACHE.cache.clear()


@schema.exclude(path_regex="/events$").parametrize()
@seed(SEED)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=False,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_no_request_gets_what_the_document_does_not_tell(case: schemathesis.Case, site: Site):
    site.lead(case)

    response = case.call(base_url=f"http://127.0.0.1:{site.served.port}")

    assert response.status_code < 500 or response.status_code == 503, response.text
    checks = list(CHECKS)
    if case.path.startswith("/v1/tasks"):
        checks.append(negative_data_rejection)  # elsewhere: unknown queries are ignored
    if not is_well_refused(case, response.text):
        checks.append(positive_data_acceptance)
    case.validate_response(response, checks=checks)
    site.statuses[case.path, response.status_code] += 1


def is_well_refused(case: schemathesis.Case, told: str) -> bool:
    """Say whether a document could not have told that this would be refused."""
    # The same key for two calls; 7.0, which JSON Schema takes for a whole number; a job that
    # is due when it has expired; an id of another version; times in form that do not exist, or
    # that have passed; cron that has the form only, or zones that nobody lives in;
    # a burst of a limit whose rate was lifted; what a fraction comes to.
    return (
        "urn:backlane:key-reused" in told
        or re.search(r"expected int\b.*, got float", told) is not None
        or "it would never run" in told
        or "burst is a part of a rate" in told
        or "more than 1,000,000 a second" in told
        or "delay and at both say when" in told
        or "expected a UUID of version 7" in told
        or re.search(r"would never fire|no date in UTC|\bcron '|\btz is '", told) is not None
        or case.path.endswith("/moments/jobs")
    )


def test_requests_of_all_kinds_were_answered_well(site: Site):
    for task in kinds.TASKS:
        path = f"/v1/tasks/{task.__name__}/jobs"
        assert site.statuses[path, 202] or site.statuses[path, 503], path
        assert site.statuses[path, 422], path
    for path in ("/v1/jobs/{job}", "/v1/queues/{queue}", "/v1/queues/{queue}/receive", "/metrics"):
        assert site.statuses[path, 200], path
