"""The commands of the attacks."""
