"""Statements: the KKT system and its sources."""
