"""Learning algorithms, one a file; they never import one another."""
