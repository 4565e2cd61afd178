"""Sparse probes: linear models on a few of the dimensions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nlp_mtl.probing.features import Features


@dataclass(frozen=True)
class Probe:
    """A linear probe and what it came to.

    Attributes:
        layer: which layer it reads.
        dimensions: which of the hidden size, by their weight; None for all.
        held_out: its score on the training rows that were held out to choose.
        score: its score on the validation rows; None where there are none.
    """

    layer: int
    dimensions: list[int] | None
    held_out: float
    score: float | None


def probes(
    train: Features, test: Features | None, sizes: list[int], *, numbers: bool, share: float = 0.25, seed: int = 0
) -> list[Probe]:
    """A probe for each layer and number of dimensions, chosen and fitted on training rows alone.

    The dimensions are those with the largest weights of a probe on all of them, each scaled to unit variance; the probe
    is then fitted anew on these. Rows are held out whole: tokens of a row are on one side.

    Args:
        train, test: features of the training and validation rows.
        sizes: how many dimensions; 0 for all.
        numbers: whether labels are values (ridge regression, Pearson's r), and not classes (logistic regression,
            accuracy).
        share: of the rows that are held out to choose by.
        seed: of the draw.

    Relations: Gurnee et al. (2023, arXiv 2305.01610); a probe on all dimensions is that of Alain and Bengio (2016,
    arXiv 1610.01644).
    """
    rows = np.unique(train.groups)
    out = np.isin(train.groups, np.random.default_rng(seed).permutation(rows)[: max(1, round(share * len(rows)))])
    found = []
    for layer, whole in train.layers.items():
        mean, spread = whole[~out].mean(0), whole[~out].std(0)
        scaled = (whole - mean) / np.where(spread > 1e-6, spread, 1.0)
        tested = None if test is None else (test.layers[layer] - mean) / np.where(spread > 1e-6, spread, 1.0)
        weights = _weights(scaled[~out], train.labels[~out], numbers)
        for size in sizes:
            kept = None if not size or size >= whole.shape[1] else np.argsort(-weights, kind="stable")[:size]
            take = slice(None) if kept is None else kept
            model = _fitted(scaled[~out][:, take], train.labels[~out], numbers)
            held = _score(model, scaled[out][:, take], train.labels[out], numbers)
            score = None
            if tested is not None and test is not None:
                score = _score(model, tested[:, take], test.labels, numbers)
            found.append(Probe(layer, None if kept is None else sorted(kept.tolist()), held, score))
    return found


def best(found: list[Probe], *, within: float = 0.0) -> Probe:
    """The probe with the best held-out score; of those that are at most `within` worse, one with the fewest dimensions.

    Example:
        >>> some = [Probe(1, None, 0.80, None), Probe(2, [3, 4], 0.79, None)]
        >>> best(some).layer, best(some, within=0.02).layer
        (1, 2)
    """
    top = max(one.held_out for one in found)
    near = [one for one in found if one.held_out >= top - within]
    size = [len(one.dimensions) if one.dimensions is not None else 10**9 for one in near]
    few = [one for one, count in zip(near, size, strict=True) if count == min(size)]
    return max(few, key=lambda one: one.held_out)


def _fitted(x: np.ndarray, y: np.ndarray, numbers: bool) -> object:
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression, Ridge

    if numbers:
        return Ridge(alpha=1.0).fit(x, y)
    if len(np.unique(y)) < 2:
        return DummyClassifier().fit(x, y)
    return LogisticRegression(max_iter=200, C=0.1).fit(x, y)


def _weights(x: np.ndarray, y: np.ndarray, numbers: bool) -> np.ndarray:
    """[hidden]: how much each dimension counts, the largest over classes."""
    found = np.atleast_2d(getattr(_fitted(x, y, numbers), "coef_", np.zeros(x.shape[1])))
    return np.abs(found).max(0)


def _score(model: object, x: np.ndarray, y: np.ndarray, numbers: bool) -> float:
    given = model.predict(x)  # type: ignore[attr-defined]
    if not numbers:
        return float((given == y).mean())
    if given.std() < 1e-12 or y.std() < 1e-12:
        return 0.0
    return float(np.corrcoef(given, y)[0, 1])
