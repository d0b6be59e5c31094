"""Statements: the linear equations and their rank."""
