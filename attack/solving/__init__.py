"""Solvers and the loop of an attack."""
