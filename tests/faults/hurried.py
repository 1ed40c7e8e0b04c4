"""The diarist behind a broker, whose offers are soon void: `tests.faults.hurried:app`.

Whoever waits for a message that a killed process never sent waits for minutes, by design.
"""

import functools
import os

from tests.faults.diarist import diarist

from backlane.engine import brokered
from backlane.engine.brokered.patience import Patience

HURRIED = Patience(offer=1.5, held=1.0, settled=0.5, unordered=0.5, poll=0.3)

brokered.Brokered = functools.partial(brokered.Brokered, patience=HURRIED)  # type: ignore[misc]

app = diarist(os.environ["FAULTS_URL"]).app
