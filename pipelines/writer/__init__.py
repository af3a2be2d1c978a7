"""The writer: L0 to a data set of MeerKAT visibility format v4."""
