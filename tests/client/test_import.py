"""The client loads its HTTP library and nothing that only a server or a worker needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

SERVERS = {"starlette", "uvicorn", "fastapi", "flask", "werkzeug"}
STORES = {"apsw", "backlane.engine.sqlite", "backlane.engine.memory"}
ABOVE = {"backlane.worker", "backlane.gateway", "backlane.cli", "backlane.testing"}
OTHERS = {f"backlane.integrations.{name}" for name in ("asgi", "wsgi", "fastapi", "flask")}


def loaded(module: str) -> set[str]:
    program = f"import sys, {module}; print('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.split())


def test_the_client_loads_no_server_no_store_and_no_worker():
    modules = loaded("backlane.client")

    assert "httpx2" in modules
    assert not modules & (SERVERS | STORES | ABOVE | OTHERS)


@pytest.mark.parametrize(
    ("name", "frameworks"),
    [
        ("asgi", set()),
        ("wsgi", set()),
        ("fastapi", {"fastapi", "starlette"}),
        ("flask", {"flask", "werkzeug"}),
    ],
)
def test_an_integration_loads_its_framework_alone(name, frameworks):
    modules = loaded(f"backlane.integrations.{name}")

    others = OTHERS - {f"backlane.integrations.{name}"}
    assert not modules & (STORES | ABOVE | others | (SERVERS - frameworks))
