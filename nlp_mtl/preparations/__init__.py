"""Preparations: named, pure functions rows → rows, for what a task file can't say (``prepare: name``).

A preparation takes a `datasets.Dataset` and its arguments and returns a `datasets.Dataset`; it sees one split at a time
and must give the same rows for the same rows.

Example:
    >>> from datasets import Dataset
    >>> from nlp_mtl import registry
    >>> rows = Dataset.from_dict({"line": ["NUM:date When was the war ?"]})
    >>> registry.preparations["question_lines"](rows)[0]
    {'text': 'When was the war ?', 'coarse_label': 'NUM', 'fine_label': 'NUM:date'}
"""

from nlp_mtl.preparations import choices, general, superglue, words

__all__ = ["choices", "general", "superglue", "words"]
