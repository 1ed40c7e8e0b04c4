"""Programs in other languages, on both sides of one in Python."""
