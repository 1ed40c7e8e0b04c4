"""Retry storms, simulated: what callers who are refused do to a queue that is full.

`line` is the queue, `gate` the process in front of it, with the real meter, slots and
tickets, `policy` what a refused caller does, `world` the time in which they meet. All
of it is seeded: the same run gives the same figures on every machine.
"""
