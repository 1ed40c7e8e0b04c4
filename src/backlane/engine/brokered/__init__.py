"""A broker before a ledger: the ledger holds the jobs, the broker brings them to workers."""

from backlane.engine.brokered.engine import Brokered as Brokered
