"""The report of a capture block: a page with plots, for people."""
