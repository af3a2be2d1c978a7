"""Stand-in for the distribution ``http-parser``: what pymesos needs of it."""
