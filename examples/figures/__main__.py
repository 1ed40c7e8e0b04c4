"""`python -m examples.figures`: looks at the figures, and says how long the look took."""

from __future__ import annotations

import time

from examples.figures.jobs import compute

from backlane import NoResult


def main() -> None:
    began = time.perf_counter()
    try:
        figures = compute.latest()
    except NoResult as why:
        print(why)
        return
    took = (time.perf_counter() - began) * 1000
    print(f"{figures}\nread in {took:.1f} ms; computing it took {figures.took} s")


if __name__ == "__main__":
    main()
