"""Transports: what carries messages between processes, a folder or a file each."""
