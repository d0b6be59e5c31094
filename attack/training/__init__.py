"""Victims: images, losses, descent, stationarity."""
