"""Networks: layers, activations and losses in float64."""
