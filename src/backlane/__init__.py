"""Asynchronous work for Python that can be trusted: tasks, messages, back pressure."""
