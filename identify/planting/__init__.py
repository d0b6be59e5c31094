"""Exact stationary networks for given samples."""
