"""Linear algebra of the checker: ranks, least squares, norms."""
