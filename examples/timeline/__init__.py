"""A small social timeline: posts appear at once, and thousands of followers get them soon."""
