"""The PostgreSQL engine: one server, any number of machines."""
