"""Statements: what is never determined."""
