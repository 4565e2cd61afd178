"""Metrics of domains: how well a classifier tells them apart, and how far their vectors are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nlp_mtl.errors import DataError
from nlp_mtl.metrics.base import as_arrays, metric

MOST = 2000  # rows of each domain that MMD looks at: it compares all pairs


@metric("proxy_a_distance", greater_is_better=False, paper="Ben-David et al., 2007, NIPS 19")
def proxy_a_distance(
    predictions: Sequence[Any], references: Sequence[Any], *, labels: Sequence[str] | None = None
) -> float:
    """The proxy A-distance, 2 (1 − 2 ε): 0 where domains can't be told apart, 2 where they always can.

    ε is the error of telling two domains apart, the mean over the domains of each one's own error, so that a large one
    counts no more. Of k domains it is 2 (1 − ε k/(k − 1)), which is the same for two.

    Args:
        predictions, references: numbers or names of domains.
        labels: not needed.

    Returns:
        −2 to 2, smaller is better; below 0 is worse than guessing.

    Raises:
        DataError: one domain only.

    Example:
        >>> proxy_a_distance([0, 1, 0, 1], [0, 0, 1, 1]), proxy_a_distance([0, 0, 1, 1], [0, 0, 1, 1])
        (0.0, 2.0)
    """
    import numpy as np

    said, true = as_arrays(predictions, references)
    names = np.unique(true)
    if said.ndim != 1 or len(names) < 2:
        raise DataError(f"proxy_a_distance: rows of two domains at least are needed, found {len(names)}")
    error = float(np.mean([np.mean(said[true == name] != name) for name in names]))
    return 2.0 * (1.0 - error * len(names) / (len(names) - 1))


@metric("coral_distance", greater_is_better=False, paper="Sun & Saenko, 2016, arXiv:1607.01719")
def coral_distance(
    predictions: Sequence[Any], references: Sequence[Any], *, labels: Sequence[str] | None = None
) -> float:
    """CORAL between domains' vectors, the mean over pairs of domains; see :func:`nlp_mtl.distances.coral`.

    Args:
        predictions: vectors, [rows, d].
        references: the number of each row's domain.
        labels: not needed.

    Returns:
        A number from 0, smaller is better.

    Raises:
        DataError: no vectors, or fewer than 2 rows of any two domains.

    Example:
        >>> coral_distance([[0.0], [2.0], [0.0], [4.0]], [0, 0, 1, 1])
        9.0
    """
    from nlp_mtl.distances import coral

    return mean_distance("coral_distance", predictions, references, coral)


@metric("mmd", greater_is_better=False, paper="Gretton et al., 2012, JMLR 13")
def mmd(predictions: Sequence[Any], references: Sequence[Any], *, labels: Sequence[str] | None = None) -> float:
    """MMD² between domains' vectors, the mean over pairs of domains; see :func:`nlp_mtl.distances.mmd`.

    Args:
        predictions: vectors, [rows, d]; of a domain with more than 2000, so many at equal steps.
        references: the number of each row's domain.
        labels: not needed.

    Returns:
        0 to 2, smaller is better.

    Raises:
        DataError: no vectors, or fewer than 2 rows of any two domains.

    Example:
        >>> mmd([[0.0], [1.0], [0.0], [1.0]], [0, 0, 1, 1])
        0.0
    """
    from nlp_mtl.distances import mmd as distance

    return mean_distance("mmd", predictions, references, distance, most=MOST)


def mean_distance(
    name: str,
    vectors: Sequence[Any],
    domains: Sequence[Any],
    distance: Callable[[Any, Any], Any],
    *,
    most: int | None = None,
) -> float:
    """The mean of a distance over pairs of domains, in float64.

    Args:
        name: of the metric, for messages.
        vectors: [rows, d].
        domains: [rows].
        distance: of two tensors.
        most: at most so many rows of a domain, at equal steps.

    Raises:
        DataError: no vectors, or fewer than 2 rows of any two domains.
    """
    import numpy as np
    import torch

    from nlp_mtl.distances import between_domains

    try:
        rows, whose = np.asarray(vectors, dtype=np.float64), np.asarray(domains)
    except (TypeError, ValueError):
        rows, whose = np.zeros(0), np.zeros(0)
    if rows.ndim != 2 or whose.shape != rows.shape[:1]:
        raise DataError(f"{name}: a vector and a domain for each row are needed; it goes with head: domain_alignment")
    numbers = np.unique(whose, return_inverse=True)[1]
    counts = np.bincount(numbers)
    if (counts > 1).sum() < 2:
        raise DataError(f"{name}: two rows at least of two domains are needed, found rows {counts.tolist()}")
    kept = []
    for number, count in enumerate(counts):
        places = np.flatnonzero(numbers == number)
        kept.append(places if most is None or count <= most else places[np.arange(most) * count // most])
    chosen = np.concatenate(kept)
    return float(between_domains(torch.from_numpy(rows[chosen]), torch.from_numpy(numbers[chosen]), distance))
