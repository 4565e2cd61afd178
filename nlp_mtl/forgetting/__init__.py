"""Tasks that are learned one after the other, and what is forgotten meanwhile."""
