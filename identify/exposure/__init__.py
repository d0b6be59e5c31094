"""The view of the owner of the data: which samples are exposed, and how exactly."""
