"""A worker behind a broker, whose offers are soon void: `python -m tests.faults.hurried worker …`.

Whoever waits for a message that a killed process never sent waits for minutes, by design.
"""

import functools

from backlane.cli import main
from backlane.engine import brokered
from backlane.engine.brokered.patience import Patience

HURRIED = Patience(offer=2.0, held=1.0, settled=0.5, inexact=1.0, unordered=0.5, poll=0.3)

if __name__ == "__main__":
    brokered.Brokered = functools.partial(brokered.Brokered, patience=HURRIED)  # type: ignore[misc]
    main()
