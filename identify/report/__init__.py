"""The report of a verdict: record, text, pictures."""
