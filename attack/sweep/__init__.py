"""Many runs of a command: a specification, a cluster, one file of results."""
