"""Integrations: backlane inside web frameworks, each in a module of its own."""
