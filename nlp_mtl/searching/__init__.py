"""A search over ways of training: which tasks together, with what, judged on rows that the search never saw."""
