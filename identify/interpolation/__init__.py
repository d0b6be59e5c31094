"""The linear equations of the moment tensor: their rank and their solution (Theorem 4.1)."""
