"""Is a run better than its twin? A test in which other seeds and other rows could both have come out otherwise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nlp_mtl.errors import ConfigError
from nlp_mtl.verdicts.rowstats import RowScore

HELPED, HURT, NOTHING = "helped", "hurt", "no difference shown"
LEAST_SEEDS = 3


@dataclass(frozen=True)
class Difference:
    """How much better one way is than another on a task, and how sure that is.

    Attributes:
        mean: of the differences of scores, seed by seed; above 0 is better, also where less of the metric is.
        half: half the width of its interval; NaN with fewer seeds than :data:`LEAST_SEEDS`.
        rows_half: half the width of an interval over rows alone, for these seeds and no others.
        p: of the test that there is no difference; NaN where there is no interval.
        freedom: degrees of freedom of the test.
        each: the differences, seed by seed.
        rows: how many rows they are over.
        rows_p: of the test over rows alone.
    """

    mean: float
    half: float
    rows_half: float
    p: float
    freedom: float
    each: tuple[float, ...]
    rows: int
    rows_p: float = math.nan

    @property
    def low(self) -> float:
        """The lower end of the interval."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """The upper end of the interval."""
        return self.mean + self.half

    def __str__(self) -> str:
        return f"{self.mean:+.3f}" + ("" if math.isnan(self.half) else f" ± {self.half:.3f}")


def difference(
    ours: Sequence[RowScore], theirs: Sequence[RowScore], *, better: bool = True, confidence: float = 0.95
) -> Difference:
    """Compare two ways over pairs of seeds on the same rows.

    A score is told by what it loses when one row is left out (jackknife pseudovalues), so that any metric becomes a
    mean over rows. The differences of these, seeds by rows, have variance between seeds, between rows, and what is
    left; the mean difference is judged against both of the first. With only seeds in mind, a few validation rows that
    happen to suit one way would pass for evidence; with only rows in mind, one lucky seed would. The p-value is the
    larger of this test's and that over rows alone, and so is the interval: the variance of three seeds is 0 by chance
    where scores are counts, and would make a difference of one row sure.

    Args:
        ours, theirs: a score for each seed, in the same order, all on the same rows.
        better: whether more of the metric is better.
        confidence: of the intervals.

    Raises:
        ConfigError: other numbers of seeds, or of rows.

    References:
        Dorfman, Berbaum and Metz, "Receiver operating characteristic rating analysis", Investigative Radiology 27,
        1992, for readers (here seeds) and cases (here rows); degrees of freedom by Hillis, "A comparison of
        denominator degrees of freedom methods for multiple observer ROC analysis", Statistics in Medicine 26, 2007.

    Relations: like a paired t-test over seeds (:func:`nlp_mtl.studies.statistics.interval`), but a small validation
    split widens it; like a paired bootstrap over rows (Koehn 2004), but seeds that disagree widen it.

    Cost: one pass over the rows for each score.

    Example:
        >>> from nlp_mtl.verdicts.rowstats import row_score
        >>> right = [row_score("accuracy", [1] * 90 + [0] * 10, [1] * 100) for _ in range(3)]
        >>> less = [row_score("accuracy", [1] * (70 + n) + [0] * (30 - n), [1] * 100) for n in range(3)]
        >>> found = difference(right, less)
        >>> str(found), found.p < 0.05
        ('+0.190 ± 0.077', True)
    """
    if len(ours) != len(theirs) or not ours:
        raise ConfigError(f"difference: as many seeds on both sides, found {len(ours)} and {len(theirs)}")
    rows = ours[0].rows
    if {found.rows for found in (*ours, *theirs)} != {rows}:
        raise ConfigError("difference: all scores are over the same rows, found different numbers of rows")
    sign = 1.0 if better else -1.0
    each = sign * np.array([a.value - b.value for a, b in zip(ours, theirs, strict=True)])
    mean, seeds = float(each.mean()), len(each)
    if rows < 2:
        return Difference(mean, math.nan, math.nan, math.nan, math.nan, tuple(each.tolist()), rows)
    table = sign * np.stack([_pseudo(a) - _pseudo(b) for a, b in zip(ours, theirs, strict=True)])  # [seeds, rows]
    by_row = table.mean(0)
    of_rows = seeds * float(by_row.var(ddof=1))
    of_mean = math.sqrt(of_rows / (seeds * rows))
    rows_half, rows_p = _quantile(confidence, rows - 1) * of_mean, _p(mean, of_mean, rows - 1, rows)
    seen = tuple(each.tolist())
    if seeds < LEAST_SEEDS:
        return Difference(mean, math.nan, rows_half, math.nan, math.nan, seen, rows, rows_p)
    rest = table - table.mean(1, keepdims=True) - by_row + table.mean()
    left = float((rest**2).sum()) / ((seeds - 1) * (rows - 1))
    of_seeds = rows * float(each.var(ddof=1))
    spread = of_seeds + max(of_rows - left, 0.0)
    freedom = (spread / of_seeds) ** 2 * (seeds - 1) if of_seeds > 0 else math.inf
    freedom = min(freedom, rows - 1.0)
    error = math.sqrt(spread / (seeds * rows))
    # a few seeds often agree to the row by chance, where scores are counts: it is never surer than over rows alone
    half = max(_quantile(confidence, freedom) * error, rows_half)
    p = max(_p(mean, error, freedom, rows), rows_p)
    return Difference(mean, half, rows_half, p, freedom, seen, rows, rows_p)


def _pseudo(found: RowScore) -> np.ndarray:
    """[rows] jackknife pseudovalues: their mean is nearly the score, and of a mean they are the rows' own values."""
    return found.rows * found.value - (found.rows - 1) * found.left_out()


def _p(mean: float, error: float, freedom: float, rows: int) -> float:
    """Of Student's test that a mean is 0; where all rows differ alike, of the sign test."""
    from scipy import stats

    if error <= 0:
        return 1.0 if mean == 0 else 2 * 0.5**rows
    return float(2 * stats.t.sf(abs(mean) / error, freedom))


def _quantile(confidence: float, freedom: float) -> float:
    from scipy import stats

    return float(stats.t.ppf((1 + confidence) / 2, freedom))


def holm(values: Mapping[str, float]) -> dict[str, float]:
    """p-values as they count when several tests are made together (Holm, 1979, Scandinavian Journal of Statistics 6).

    Args:
        values: what → p; NaN, where no test was made, stays.

    Relations: like Bonferroni, but the smaller p-values make room for the others; it never finds less.

    Example:
        >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
        {'a': 0.03, 'b': 0.06, 'c': 0.06}
    """
    known = sorted((p, what) for what, p in values.items() if not math.isnan(p))
    found, least = {}, 0.0
    for place, (p, what) in enumerate(known):
        least = max(least, min(1.0, p * (len(known) - place)))
        found[what] = least
    return {what: found.get(what, math.nan) for what in values}


def words(found: Difference, p: float, confidence: float = 0.95) -> str:
    """A verdict: helped, hurt, no difference shown, or why there is none.

    Args:
        found: the difference.
        p: its p-value, as :func:`holm` gives it.
        confidence: what p is measured by.

    Example:
        >>> words(Difference(0.02, 0.01, 0.01, 0.001, 3.0, (0.02,) * 3, 100), 0.002)
        'helped'
        >>> words(Difference(0.02, math.nan, 0.01, math.nan, math.nan, (0.02,), 100), math.nan)
        'not decidable, one seed'
    """
    seeds = len(found.each)
    if seeds < LEAST_SEEDS:
        return f"not decidable, {('one seed', 'two seeds')[seeds - 1]}"
    if math.isnan(p):
        return "not decidable, one row"
    if p >= 1 - confidence:
        return NOTHING
    return HELPED if found.mean > 0 else HURT


def bootstrap(
    score: RowScore, *, resamples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """An interval of a score over rows, by resampling them (Efron, 1979; percentiles).

    Args:
        score: of the rows.
        resamples: how many; a tenth where the metric must be called for each.
        confidence: of the interval.
        seed: of the draws.

    Example:
        >>> from nlp_mtl.verdicts.rowstats import row_score
        >>> low, high = bootstrap(row_score("accuracy", [1] * 80 + [0] * 20, [1] * 100))
        >>> 0.70 < low < 0.75 and 0.85 < high < 0.90
        True
    """
    found = resampled([score], resamples=resamples, seed=seed)[0]
    tail = (1 - confidence) / 2
    low, high = np.quantile(found, [tail, 1 - tail])
    return float(low), float(high)


def resampled(scores: Sequence[RowScore], *, resamples: int = 2000, seed: int = 0) -> np.ndarray:
    """[scores, resamples]: scores of the same draws of rows, with replacement."""
    exact, rows = all(found.exact for found in scores), scores[0].rows
    draw, parts = np.random.default_rng(seed), []
    left = resamples if exact else max(1, resamples // 10)
    while left:
        count = min(left, max(1, 4_000_000 // rows))
        weights: Any = draw.multinomial(rows, np.full(rows, 1 / rows), size=count).astype(float)
        parts.append(np.stack([found.weighted(weights) for found in scores]))
        left -= count
    return np.concatenate(parts, axis=1)
