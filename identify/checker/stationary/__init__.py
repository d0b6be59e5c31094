"""Reports on the weights of two-layer ReLU networks: their own gradient, and what is beside it."""
