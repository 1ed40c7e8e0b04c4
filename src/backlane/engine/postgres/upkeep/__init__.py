"""Upkeep: what people and sweeps do to jobs, queues and workers."""
