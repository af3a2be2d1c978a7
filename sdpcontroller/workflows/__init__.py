"""Product configuration to logical graph: pure, deterministic, one module per workflow."""
