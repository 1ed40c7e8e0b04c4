"""The lease: how jobs are claimed, held, offered and settled."""
