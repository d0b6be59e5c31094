"""Other training sets that explain the same data."""
