"""Statements: beyond the theorems."""
