"""What the workers of the fault tests serve: the diarist on the store of `FAULTS_URL`."""

import os

from tests.faults.diarist import diarist

app = diarist(os.environ["FAULTS_URL"]).app
