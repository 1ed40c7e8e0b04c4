"""Benchmarks: every figure beside its bar, as a ratio within one run.

`python -m bench` prints the table; `docs/performance.md` explains it. A machine
drifts by almost a factor of two within an hour, so what is compared is measured in
turns, round by round, and a figure that measured nothing raises `Nothing`.
"""
