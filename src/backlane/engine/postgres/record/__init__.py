"""The record: all that is known of a job, and its moves from state to state."""
