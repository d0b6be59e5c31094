"""Sample splitting: where, how, and whether it is accepted."""
