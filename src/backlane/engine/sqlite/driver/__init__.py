"""The driver: what carries plans out, in one process or in a transaction of the caller."""
