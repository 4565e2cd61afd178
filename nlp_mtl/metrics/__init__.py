"""Metrics: pure functions (predictions, references) → a number, or a dict whose first key is the metric's own name.

The form of predictions and references goes with the kind of head:

| head | predictions | references |
|---|---|---|
| classification, masked LM | label (token) numbers | the same |
| regression | floats | floats |
| multi-label | rows of 0/1, all of the same length | the same |
| token classification | one list of tag names per sentence | the same |
| seq2seq | texts | a list of true texts, usually one |
| question answering | strings (empty: no answer) | a list of acceptable answers (empty list: no answer) |
| domain alignment | vectors, one per row | numbers of domains |

A metric may need more than these: class probabilities (``scores``), or columns of the rows (``groups``). It says so
where it is registered (``@metric(name, needs=[…])``), the head gives the scores, the task file names the columns
(``metric_columns: {groups: question_id}``), and the Evaluator hands them over.

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
from nlp_mtl.metrics.domains import coral_distance, mmd, proxy_a_distance
from nlp_mtl.metrics.groups import best_exact_match, best_f1_answer, gender_parity, group_exact_match
from nlp_mtl.metrics.ranking import average_precision, roc_auc
from nlp_mtl.metrics.regression import mae, mse, pearson, spearman
from nlp_mtl.metrics.scoring import PREFIX, greater_is_better, key_of, needs, resolve, score
from nlp_mtl.metrics.spans import span_f1
from nlp_mtl.metrics.texts import bleu, chrf, rouge1, rouge2, rouge_l

__all__ = [
    "PREFIX",
    "accuracy",
    "average_precision",
    "best_exact_match",
    "best_f1_answer",
    "bleu",
    "chrf",
    "coral_distance",
    "exact_match",
    "f1",
    "f1_answer",
    "f1_favor_against",
    "f1_macro",
    "f1_micro",
    "gender_parity",
    "greater_is_better",
    "group_exact_match",
    "key_of",
    "mae",
    "matthews_correlation",
    "metric",
    "mmd",
    "mse",
    "needs",
    "normalize_answer",
    "pearson",
    "proxy_a_distance",
    "recall_macro",
    "resolve",
    "roc_auc",
    "rouge1",
    "rouge2",
    "rouge_l",
    "score",
    "span_f1",
    "spearman",
]
