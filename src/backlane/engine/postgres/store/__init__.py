"""The store: the server itself, and what it takes to reach it and to speak with it."""
