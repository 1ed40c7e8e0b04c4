"""A transport without a ledger: each job travels whole, and the broker alone keeps it.

At least once: what a worker that dies had in its hands is shown to another. There are
delays, retries and dead letters; what has to be remembered of a job while it waits, or
after it ended, there is not, and asking for it names the ledger that would have it.
"""

from backlane.engine.bare.engine import Bare

__all__ = ["Bare"]
