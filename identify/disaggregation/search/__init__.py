"""One gradient of a network with smooth activations: search, deflation, evidence, verdict."""
