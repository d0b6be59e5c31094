"""The samples of a batch, one at a time, from one gradient of a network in use."""
