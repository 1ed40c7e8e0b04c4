"""The driver: what carries plans out, for threads and for event loops."""
