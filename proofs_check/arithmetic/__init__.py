"""Exact arithmetic for statements."""
