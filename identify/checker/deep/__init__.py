"""The check of a report on one gradient of a ReLU network of any depth."""
