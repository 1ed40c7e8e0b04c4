"""The proof: full figures, the fault campaign and the durability proofs, in one table.

The fault and durability proofs are tests; run with `BACKLANE_PROVE=1` they take their
full sizes. What a test recorded with pytest's `record_property` is its figure.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path

from bench.catalogue import CATALOGUE, measured
from bench.figure import Figure
from bench.machine import machine
from bench.table import table

ROOT = Path(__file__).parent.parent
PROOFS = ("tests/faults", "tests/engine")
LIMIT = 60 * 60.0  # seconds for the proofs that are tests


def prove(*, full: bool) -> int:
    """Run everything, print one table; return the exit status."""
    began = time.monotonic()
    print(machine(), flush=True)
    figures = measured(list(CATALOGUE), full=full, tell=_tell)
    figures += _proofs(full=full)
    print(table(figures))
    failed = [figure.name for figure in figures if not figure.holds]
    minutes = (time.monotonic() - began) / 60
    print(f"prove: figures={len(figures)} failed={len(failed)} minutes={minutes:.0f}")
    return 1 if failed else 0


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _proofs(*, full: bool) -> list[Figure]:
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "proofs.xml"
        command = [
            *(sys.executable, "-m", "pytest", *PROOFS),
            *(f"--junitxml={report}", "-o", "junit_family=xunit1", "--timeout=900"),
        ]
        environment = {**os.environ, "BACKLANE_PROVE": "1"} if full else dict(os.environ)
        try:
            subprocess.run(command, cwd=ROOT, env=environment, check=False, timeout=LIMIT)
        except subprocess.TimeoutExpired:
            return [
                _told("fault and durability proofs", f"not done within {LIMIT:.0f} s", holds=False)
            ]
        if not report.exists():
            return [_told("fault and durability proofs", "pytest made no report", holds=False)]
        return _figures(report)


def _figures(report: Path) -> list[Figure]:
    """Return a figure for each proof that recorded one or failed, and one for the others."""
    figures: list[Figure] = []
    quiet = 0
    for case in ET.parse(report).iter("testcase"):
        holds = case.find("failure") is None and case.find("error") is None
        skipped = case.find("skipped") is not None
        name = case.get("name", "").removeprefix("test_").replace("_", " ")
        told = [it.get("value", "") for it in case.iter("property") if it.get("name") == "figure"]
        if told or not holds:
            figures.append(_told(name, "; ".join(told) or "failed", holds=holds and not skipped))
        elif not skipped:
            quiet += 1
    # A run that exercised nothing is a failure, never a pass.
    figures.append(_told("other durability and fault tests", f"{quiet} passed", holds=quiet > 0))
    return figures


def _told(name: str, told: str, *, holds: bool) -> Figure:
    return Figure(name=name, measured=told, beside="", ratio="", bar="", holds=holds)
