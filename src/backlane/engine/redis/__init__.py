"""The Redis and Valkey engine: jobs in memory, as durable as the server is set to be."""
