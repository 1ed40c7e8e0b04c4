"""What the benchmarks' workers run: the workload on the store named by `BENCH_URL`."""

import os

from bench.workload import BOUND, workload

app = workload(os.environ["BENCH_URL"], int(os.environ.get("BENCH_BOUND", BOUND))).app
