"""Append: how jobs come in: admitted, deduplicated, or put there by a schedule."""
