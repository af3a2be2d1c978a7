"""Ingest: receive correlator heaps, average, flag, and send L0."""
