"""The store: the server itself, and what it takes to find it and to speak with it."""
