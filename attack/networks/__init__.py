"""Networks that are attacked: layers, activations, files."""
