"""Visibility writer: L0 heaps to a MeerKAT visibility format v4 data set."""
