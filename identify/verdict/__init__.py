"""The rules that turn measurements into a verdict (Theorem 4.1 is decided here)."""
