"""Statements: sample splitting."""
