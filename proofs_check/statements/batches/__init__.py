"""ReLU networks, sample by sample."""
