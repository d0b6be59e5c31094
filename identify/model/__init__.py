"""Networks and data: from untrusted files to checked float64 arrays."""
