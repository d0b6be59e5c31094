"""Reconstruct training data from the parameters of a trained network by optimisation."""

__all__: list[str] = []
