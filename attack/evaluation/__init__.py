"""Reconstructions beside the truth and beside what knows nothing of it."""
