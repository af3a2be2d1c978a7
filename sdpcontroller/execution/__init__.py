"""Processing blocks, real-time and offline."""
