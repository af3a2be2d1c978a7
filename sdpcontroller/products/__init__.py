"""Subarray products: their graphs, their state machines, their capture blocks."""
