"""Metrics: pure functions (predictions, references) → a number, or a dict whose first key is the metric's own name.

The form of predictions and references goes with the kind of head:

| head | predictions | references |
|---|---|---|
| classification, masked LM | label (token) numbers | the same |
| regression | floats | floats |
| multi-label | rows of 0/1, all of the same length | the same |
| token classification | one list of tag names per sentence | the same |
| question answering | strings (empty: no answer) | a list of acceptable answers (empty list: no answer) |

Proportions lie in [0, 1], never in percent. scikit-learn, scipy, seqeval and evaluate are imported on first use.

Example:
    >>> score(["accuracy", "f1"], [0, 1, 1, 0], [0, 1, 0, 0], labels=["no", "yes"])
    {'accuracy': 0.75, 'f1': 0.6666666666666666}
"""

from nlp_mtl.metrics.answers import exact_match, f1_answer, normalize_answer
from nlp_mtl.metrics.base import metric
from nlp_mtl.metrics.classification import (
    accuracy,
    f1,
    f1_favor_against,
    f1_macro,
    f1_micro,
    matthews_correlation,
    recall_macro,
)
from nlp_mtl.metrics.regression import mae, mse, pearson, spearman
from nlp_mtl.metrics.scoring import greater_is_better, key_of, resolve, score
from nlp_mtl.metrics.spans import span_f1

__all__ = [
    "accuracy",
    "exact_match",
    "f1",
    "f1_answer",
    "f1_favor_against",
    "f1_macro",
    "f1_micro",
    "greater_is_better",
    "key_of",
    "mae",
    "matthews_correlation",
    "metric",
    "mse",
    "normalize_answer",
    "pearson",
    "recall_macro",
    "resolve",
    "score",
    "span_f1",
    "spearman",
]
