"""From terms to samples: scale, ties, error bounds, what is left over."""
