"""The doctor: what loses jobs or time, and what mends it."""
