"""What is measured, each against a named yardstick."""
