"""From the moment tensor to its terms: pencil, equations, refinement."""
