"""Limits: what is declared and tuned, and the resources that jobs depend on."""
