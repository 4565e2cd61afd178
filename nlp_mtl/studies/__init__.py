"""Studies: something learned about tasks from several runs."""
