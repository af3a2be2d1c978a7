"""What every pipeline program shares."""
