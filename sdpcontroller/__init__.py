"""The master controller: products, capture blocks, state and recovery."""
