"""The worker: what claims jobs, runs them and settles them."""
