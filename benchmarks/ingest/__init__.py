"""How much CPU and memory ingest takes, and what it loses: ``python -m benchmarks.ingest``."""
