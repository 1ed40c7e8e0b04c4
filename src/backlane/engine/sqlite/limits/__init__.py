"""Limits: gates, fair turns and resources, and who waits in front of them."""
