"""Statements: moment tensors and their decompositions."""
