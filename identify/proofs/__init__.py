"""Proofs of single conditions: ranks modulo primes, singular values, enclosures."""
