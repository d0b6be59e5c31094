"""Hermite data: what weights, a gradient or a fine-tuned pair say about the moment tensor."""
