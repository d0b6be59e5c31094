"""Two checkpoints: the span of the data, and the training run replayed inside it."""
