"""Placement of whole graphs: pure functions, no I/O, no asyncio, no Mesos."""
