"""The figures on PostgreSQL and on Redis, each beside its peers on the same server."""
