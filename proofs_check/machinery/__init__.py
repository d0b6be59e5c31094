"""Runs statements: search for counterexamples, sabotages, results."""
