"""Moving: jobs and settings on their way from one store to another."""
