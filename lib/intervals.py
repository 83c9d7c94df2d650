"""From paired effects, one per seed, to an interval and to an outcome.

Four outcomes are possible for an interval [low, high] and a margin m, the smallest effect that
counts: *more* (low > m), *less* (high < -m), *same* (-m < low and high < m), or *unclear*.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

OUTCOMES = ("more", "less", "same")
MIN_SEEDS = 10  # no comparison in the course rests on fewer


@dataclass(frozen=True)
class Exact:
    """A value that no seed changes: a count, an identity, a rounding bound."""

    value: float


Effects = Sequence[float] | np.ndarray | Exact  # one per seed, or one that no seed changes


@dataclass(frozen=True)
class Interval:
    """Mean of n paired effects with its 95 % interval (Student's t)."""

    effect: float
    low: float
    high: float
    n: int


def interval(effects: Effects) -> Interval:
    """Mean and 95 % interval of paired effects, shape (n,), one per seed.

    Raises ValueError for fewer than 10 effects, other shapes, NaN or infinite values.
    """
    if isinstance(effects, Exact):
        value = float(effects.value)
        if not math.isfinite(value):
            raise ValueError(f"an exact effect has to be finite, but got {value}")
        return Interval(value, value, value, 1)
    x = np.asarray(effects, dtype=float)
    if x.ndim != 1 or len(x) < MIN_SEEDS:
        raise ValueError(
            f"effects has to be one number per seed, at least {MIN_SEEDS}, "
            f"but got an array of shape {x.shape}"
        )
    if not np.isfinite(x).all():
        raise ValueError(f"effects has to be finite, but got {x.tolist()}")
    half = stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / math.sqrt(len(x))
    return Interval(float(x.mean()), float(x.mean() - half), float(x.mean() + half), len(x))


def outcome(found: Interval, margin: float) -> str:
    """'more', 'less', 'same' or 'unclear': where the interval lies against the margin."""
    if not 0 < margin < math.inf:
        raise ValueError(f"margin has to be positive and finite, but got {margin}")
    if found.low > margin:
        return "more"
    if found.high < -margin:
        return "less"
    if -margin < found.low and found.high < margin:
        return "same"
    return "unclear"
