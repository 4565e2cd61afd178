"""Verdicts: whether training together helped each task, with evidence from seeds and rows."""
