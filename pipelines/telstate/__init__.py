"""Telescope state of one product: a Redis server, started as a task."""
