"""The soak: faults at random, for as long as one likes; see ``docs/recovery.md``."""
