"""The record: all that is known of a job."""
