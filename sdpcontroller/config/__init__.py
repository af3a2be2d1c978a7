"""The product configuration: one pydantic model per stream type."""
