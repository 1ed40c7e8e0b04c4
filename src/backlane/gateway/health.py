"""Health: is the gateway up, and would a job that it takes be run?

    GET /healthz    the process answers
    GET /readyz     the store answers, and workers that could take jobs do take them

Both take no token and name no queue; the log does.
"""

from __future__ import annotations

import asyncio
import logging

from starlette.responses import Response

from backlane.errors import BacklaneError
from backlane.gateway.answer import answer
from backlane.gateway.declined import decline
from backlane.gateway.site import Exchange, Rule

log = logging.getLogger("backlane.gateway")

STORE_SECONDS = 2.0  # in which the store is to answer; probes give up after a second or more


async def healthz(_exchange: Exchange) -> Response:
    """Say that the process answers."""
    return answer({"status": "ok"})


async def readyz(exchange: Exchange) -> Response:
    """Say whether to send requests here."""
    site = exchange.site
    checks = {"stopping": "no", "store": "ok", "claims": "ok"}
    if site.stopping.is_set():
        checks["stopping"] = "yes"
        _not_ready("the gateway stops", checks)
    try:
        async with asyncio.timeout(STORE_SECONDS):
            stalled = await site.readiness.stalled(
                exchange.app.engine, await site.speeds.read(), site.app.clock.boot_ms()
            )
    except (BacklaneError, TimeoutError, OSError) as error:
        log.warning("not ready: the store does not answer (%r)", error)
        checks.update(store="silent", claims="unknown")
        _not_ready("the store does not answer", checks)
    if stalled:
        log.warning("not ready: nothing is claimed from %s", ", ".join(stalled[:10]))
        checks["claims"] = "stalled"
        _not_ready("jobs are ready and workers are free, and nothing is claimed", checks)
    return answer({"status": "ready", "checks": checks})


ROUTES = [Rule("GET", "/healthz", healthz, None), Rule("GET", "/readyz", readyz, None)]


def _not_ready(why: str, checks: dict[str, str]) -> None:
    decline(503, "not-ready", "Not ready", why, (("Retry-After", "1"),), checks=checks)
