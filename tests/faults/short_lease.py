"""A worker whose leases are short: `python -m tests.faults.short_lease TARGET SECONDS …`.

The command takes a second at least (`--lease`): what a lease is worth to a user is that it
is longer than any pause that a machine has. Some tests cannot wait even that long.
"""

import logging
import sys

from backlane.worker.supervisor import Supervisor

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    target, seconds, processes, slots = sys.argv[1:]
    supervisor = Supervisor(
        target,
        processes=int(processes),
        concurrency=int(slots),
        lease=float(seconds),
    )
    sys.exit(supervisor.run())
