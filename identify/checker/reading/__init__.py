"""Reading of untrusted reports and arrays."""
