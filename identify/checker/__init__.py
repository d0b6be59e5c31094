"""The independent checker of reports: imports nothing else of the project."""
