"""The driver: what carries plans out, on connections of ours or in a transaction of the caller."""
