"""Learning curves: what a task scores by how many rows it has, with and without help."""
