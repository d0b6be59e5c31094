"""Statements: uniqueness of the recovered samples."""
