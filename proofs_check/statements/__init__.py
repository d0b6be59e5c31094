"""One module for each group of statements; each lists them in `STATEMENTS`."""
