"""The machine: what the figures were measured on, in one line."""

from __future__ import annotations

import os
import platform
import sqlite3
import time
from pathlib import Path

import apsw


def machine() -> str:
    """Return cores, processor, memory, system, Python, SQLite, load and the hour."""
    load = os.getloadavg()[0]
    return ", ".join(
        [
            f"{os.cpu_count()} cores {_processor()}",
            f"{_memory_gib():.0f} GiB",
            f"{platform.system()} {platform.release()}",
            f"CPython {platform.python_version()}",
            f"SQLite {apsw.sqlite_lib_version()} (apsw), {sqlite3.sqlite_version} (stdlib)",
            f"load {load:.1f}",
            time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        ]
    )


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor() or platform.machine()
    for line in cpuinfo.read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
