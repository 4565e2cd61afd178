"""Long series as few points: bins, a running mean over them, and lines that break at long gaps only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

BINS = 240  # more points than that are not seen, and make the page large


@dataclass(frozen=True)
class Binned:
    """One series, thinned.

    Attributes:
        at: [points], the mean step of each bin that holds a value; NaN where the line breaks.
        low, mean, high: [points], of the values in the bin.
        smooth: [points], a running mean over a twentieth of the bins.
    """

    at: np.ndarray
    low: np.ndarray
    mean: np.ndarray
    high: np.ndarray
    smooth: np.ndarray


def binned(steps: np.ndarray, values: np.ndarray, most: int = BINS) -> Binned:
    """A series in at most `most` bins of equally many steps.

    A task that is absent now and then is drawn through; where it is absent for more than a twentieth of the bins (and
    more than three), the line breaks.

    Args:
        steps: [steps], rising.
        values: [steps], NaN where there is none.

    Example:
        >>> import numpy as np
        >>> found = binned(np.arange(4), np.array([1.0, np.nan, 3.0, 5.0]), most=2)
        >>> found.at.tolist(), found.mean.tolist(), found.high.tolist()
        ([0.5, 2.5], [1.0, 4.0], [1.0, 5.0])
    """
    import numpy as np

    bins = min(most, len(steps))
    if not bins:
        return Binned(*(np.zeros(0) for _ in range(5)))
    edges = np.linspace(0, len(steps), bins, endpoint=False).astype(int)
    known = np.isfinite(values)
    counts = np.add.reduceat(known, edges, dtype=float)
    sums = np.add.reduceat(np.where(known, values, 0.0), edges)
    low = np.minimum.reduceat(np.where(known, values, np.inf), edges)
    high = np.maximum.reduceat(np.where(known, values, -np.inf), edges)
    at = np.add.reduceat(steps.astype(float), edges) / np.diff([*edges, len(steps)])
    half = bins // 40
    window = np.ones(2 * half + 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = sums / counts
        smooth = _around(sums, window) / _around(counts, window)
    here = np.flatnonzero(counts)
    parts = np.split(here, np.flatnonzero(np.diff(here) > max(3, bins // 20)) + 1)

    def broken(whole: np.ndarray) -> np.ndarray:
        pieces = [piece for part in parts for piece in (whole[part], [np.nan])][:-1]
        return np.concatenate(pieces) if pieces else np.zeros(0)

    return Binned(*map(broken, (at, low, mean, high, smooth)))


def _around(values: np.ndarray, window: np.ndarray) -> np.ndarray:
    import numpy as np

    half = len(window) // 2
    return np.convolve(np.pad(values, half), window, mode="valid")


def singles(values: np.ndarray) -> np.ndarray:
    """[points]: values that stand between two breaks, which a line does not show; NaN elsewhere.

    Example:
        >>> import numpy as np
        >>> singles(np.array([1.0, np.nan, 2.0, 3.0])).tolist()
        [1.0, nan, nan, nan]
    """
    import numpy as np

    known = np.pad(np.isfinite(values), 1)
    return np.where(known[1:-1] & ~known[:-2] & ~known[2:], values, np.nan)
