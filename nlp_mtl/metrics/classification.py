"""Metrics of labels: one per row, one per token, or several per row (multi-label)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nlp_mtl.errors import DataError
from nlp_mtl.metrics.base import as_arrays, as_flat_arrays, f1_of, metric


@metric("accuracy", paper="GLUE: Wang et al., 2018, arXiv:1804.07461")
def accuracy(predictions: Sequence[Any], references: Sequence[Any], *, labels: Sequence[str] | None = None) -> float:
    """Share of labels that are right: ``(1/n) Σ [prediction_i = reference_i]``.

    Tags of sentences are counted over all tokens. A multi-label row is right only if all of it is (subset accuracy).

    Range:
        0 to 1, greater is better.

    References:
        Used by GLUE (Wang, Singh, Michael, Hill, Levy and Bowman, 2018, arXiv:1804.07461) and SuperGLUE (Wang et al.,
        2019, arXiv:1905.00537).

    Raises:
        DataError: predictions and references do not fit each other.

    Example:
        >>> accuracy([0, 1, 2, 2], [0, 1, 1, 2])
        0.75
        >>> accuracy([["DET", "NOUN"], ["VERB"]], [["DET", "VERB"], ["VERB"]])
        0.6666666666666666
        >>> accuracy([[1, 0], [1, 1]], [[1, 0], [0, 1]])
        0.5
    """
    predicted, expected = as_arrays(predictions, references)
    if expected.dtype.kind == "f" and (expected % 1).any():
        raise DataError("metric 'accuracy' compares classes, found fractions; use pearson, spearman or mse")
    right = predicted == expected
    return float((right if right.ndim == 1 else right.all(axis=1)).mean())


@metric("f1", paper="van Rijsbergen, Information Retrieval, 1979")
def f1(predictions: Sequence[Any], references: Sequence[Any], *, labels: Sequence[str] | None = None) -> float:
    """F1 of the positive class: ``2·TP / (2·TP + FP + FN)``; 0 if nobody ever says "positive".

    The positive class is the last label: number ``len(labels) - 1``, or 1 where `labels` is not given.

    Range:
        0 to 1, greater is better.

    References:
        van Rijsbergen, Information Retrieval, 1979. Official for MRPC and QQP in GLUE (Wang et al., 2018,
        arXiv:1804.07461).

    Raises:
        DataError: predictions and references do not fit each other, are multi-label, or are tag names.

    Example:
        >>> f1([1, 1, 0, 0], [1, 0, 1, 1], labels=["different", "same"])
        0.4
    """
    from sklearn.metrics import f1_score

    predicted, expected = as_flat_arrays("f1", predictions, references)
    if expected.dtype.kind in "US":
        raise DataError("metric 'f1' takes label numbers, found tag names; use f1_macro, or span_f1 for IOB2 tags")
    positive = len(labels) - 1 if labels else 1
    return float(f1_score(expected == positive, predicted == positive, zero_division=0.0))


@metric("f1_macro", paper="Opitz and Burst, 2019, arXiv:1911.03347")
def f1_macro(predictions: Sequence[Any], references: Sequence[Any], *, labels: Sequence[str] | None = None) -> float:
    """Mean over classes of the F1 of each class: ``(1/C) Σ_c 2·TP_c / (2·TP_c + FP_c + FN_c)``.

    As in scikit-learn: with one label per row, C counts the classes that occur in predictions or references; with
    multi-label rows, C counts all columns, and a column without a single 1 adds 0.

    Range:
        0 to 1, greater is better.

    References:
        The first of the two formulas told apart by Opitz and Burst, "Macro F1 and Macro F1", 2019, arXiv:1911.03347.
        Official for much of TweetEval (Barbieri et al., 2020, arXiv:2010.12421) and, beside accuracy, for CB in
        SuperGLUE (Wang et al., 2019, arXiv:1905.00537).

    Raises:
        DataError: predictions and references do not fit each other.

    Example:
        >>> f1_macro([0, 1, 1, 0], [0, 1, 0, 0])            # F1 of class 0 is 4/5, of class 1 is 2/3
        0.7333333333333334
        >>> f1_macro([[1, 0], [1, 1]], [[1, 0], [0, 1]])    # 2/3 and 1
        0.8333333333333333
    """
    return _f1("macro", predictions, references)


@metric("f1_micro", paper="Lewis, Evaluating Text Categorization, 1991")
def f1_micro(predictions: Sequence[Any], references: Sequence[Any], *, labels: Sequence[str] | None = None) -> float:
    """F1 of the counts of all classes together: ``2·ΣTP / (2·ΣTP + ΣFP + ΣFN)``.

    With one label per row this is accuracy. With multi-label rows it is 0 if there is no 1 anywhere.

    Range:
        0 to 1, greater is better.

    References:
        Lewis, "Evaluating Text Categorization", Speech and Natural Language Workshop, 1991.

    Raises:
        DataError: predictions and references do not fit each other.

    Example:
        >>> f1_micro([[1, 0], [1, 1]], [[1, 0], [0, 1]])    # TP 2, FP 1, FN 0
        0.8
    """
    return _f1("micro", predictions, references)


def _f1(average: str, predictions: Sequence[Any], references: Sequence[Any]) -> float:
    from sklearn.metrics import f1_score

    predicted, expected = as_arrays(predictions, references)
    if expected.ndim > 1 and expected.shape[1] == 1:  # one label: scikit-learn would take 0 and 1 for two classes
        predicted, expected, average = predicted[:, 0], expected[:, 0], "binary"
    return float(f1_score(expected, predicted, average=average, zero_division=0.0))


@metric("matthews_correlation", paper="Matthews, 1975; CoLA: Warstadt et al., 2018, arXiv:1805.12471")
def matthews_correlation(
    predictions: Sequence[Any], references: Sequence[Any], *, labels: Sequence[str] | None = None
) -> float:
    """Correlation of predicted and true labels: ``(TP·TN - FP·FN) / √((TP+FP)(TP+FN)(TN+FP)(TN+FN))``.

    For more than two classes Gorodkin's R_K, ``cov(P, R) / √(cov(P, P)·cov(R, R))`` of the one-hot labels, which is the
    same for two. Where either side knows one class only, the formula is 0/0 and the value is 0.

    Range:
        -1 to 1, greater is better; 0 is what guessing gives.

    References:
        Matthews, "Comparison of the predicted and observed secondary structure of T4 phage lysozyme", 1975. Gorodkin,
        "Comparing two K-category assignments by a K-category correlation coefficient", 2004. Official for CoLA
        (Warstadt, Singh and Bowman, 2018, arXiv:1805.12471).

    Raises:
        DataError: predictions and references do not fit each other, or are multi-label.

    Example:
        >>> matthews_correlation([1, 1, 0, 0], [1, 0, 0, 0])    # TP 1, FP 1, TN 2, FN 0: 2 / √12
        0.5773502691896258
    """
    from sklearn.metrics import matthews_corrcoef

    predicted, expected = as_flat_arrays("matthews_correlation", predictions, references)
    if (predicted == predicted[0]).all() or (expected == expected[0]).all():
        return 0.0  # scikit-learn says the same, with a warning
    return float(matthews_corrcoef(expected, predicted))


@metric("recall_macro", paper="SemEval-2017 Task 4: Rosenthal et al., 2017, arXiv:1912.00741")
def recall_macro(
    predictions: Sequence[Any], references: Sequence[Any], *, labels: Sequence[str] | None = None
) -> float:
    """Mean over classes of the share of each class that is found: ``(1/C) Σ_c TP_c / (TP_c + FN_c)``.

    As in scikit-learn, and so in TweetEval: with one label per row, C counts the classes that occur in predictions or
    references, and one that is only predicted adds 0; with multi-label rows, C counts all columns, and a column without
    a single 1 in the references adds 0.

    Range:
        0 to 1, greater is better; calling everything one of C classes gives 1/C, however rare the others are.

    References:
        Official for sentiment in tweets (as "AvgRec"): Rosenthal, Farra and Nakov, SemEval-2017 Task 4, 2017,
        arXiv:1912.00741, and with it in TweetEval (Barbieri et al., 2020, arXiv:2010.12421).

    Relations:
        `f1_macro` also counts what is wrongly said to be of a class.

    Raises:
        DataError: predictions and references do not fit each other.

    Example:
        >>> recall_macro([0, 1, 1, 0], [0, 1, 0, 0])        # of class 0, 2 of 3 are found; of class 1, 1 of 1
        0.8333333333333333
    """
    from sklearn.metrics import recall_score

    predicted, expected = as_arrays(predictions, references)
    return float(recall_score(expected, predicted, average="macro", zero_division=0.0))


@metric("f1_favor_against", paper="SemEval-2016 Task 6, as in TweetEval: Barbieri et al., 2020, arXiv:2010.12421")
def f1_favor_against(
    predictions: Sequence[Any], references: Sequence[Any], *, labels: Sequence[str] | None = None
) -> dict[str, float]:
    """Mean of the F1 of the classes "favor" and "against": ``(F1_favor + F1_against) / 2``.

    ``F1_c = 2·TP_c / (2·TP_c + FP_c + FN_c)``, 0 for a class that nobody ever says. A third class ("none") has no term
    of its own, but rows wrongly put into it or taken out of it count as misses and false alarms of the other two.

    The classes are found by their names in `labels`; where `labels` is not given, against is 1 and favor is 2, as in
    TweetEval.

    Range:
        0 to 1, greater is better.

    References:
        Official for stance in tweets: Mohammad, Kiritchenko, Sobhani, Zhu and Cherry, "SemEval-2016 Task 6: Detecting
        Stance in Tweets", 2016, and in TweetEval (Barbieri et al., 2020, arXiv:2010.12421), which scores the rows of
        all targets together.

    Relations:
        `f1_macro` takes the mean over all classes, "none" included.

    Returns:
        `f1_favor_against`, `f1_favor` and `f1_against`.

    Raises:
        DataError: predictions and references do not fit each other, are multi-label, or are tag names; no class is
            called favor or against.

    Example:
        >>> labels = ["none", "against", "favor"]
        >>> f1_favor_against([2, 1, 0, 1], [2, 1, 1, 0], labels=labels)     # favor: TP 1; against: TP 1, FP 1, FN 1
        {'f1_favor_against': 0.75, 'f1_favor': 1.0, 'f1_against': 0.5}
    """
    predicted, expected = as_flat_arrays("f1_favor_against", predictions, references)
    if expected.dtype.kind in "US":
        raise DataError("metric 'f1_favor_against' takes label numbers, found tag names; use f1_macro")
    names = list(labels) if labels is not None else ["none", "against", "favor"]
    missing = [name for name in ("favor", "against") if name not in names]
    if missing:
        raise DataError(
            f"metric 'f1_favor_against' needs the labels favor and against; {' and '.join(missing)} is not among "
            f"{', '.join(names)}; use f1_macro, or name the labels so"
        )
    each = {}
    for name in ("favor", "against"):
        ours, theirs = predicted == names.index(name), expected == names.index(name)
        each[f"f1_{name}"] = f1_of(float((ours & theirs).sum()), float(ours.sum()), float(theirs.sum()))[2]
    return {"f1_favor_against": sum(each.values()) / 2, **each}
