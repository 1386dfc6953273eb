"""What is made of the rounds: medians with quartiles, and ratios of medians."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles


@dataclass(frozen=True)
class Spread:
    """The middle of several rounds, and between what half of them lay."""

    median: float
    q1: float
    q3: float


def spread(values: Sequence[float]) -> Spread:
    """raises: ValueError  there are no values."""
    if not values:
        raise ValueError("no rounds to take a median of")
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, _, high = quantiles(values, n=4, method="inclusive")
    return Spread(median(values), low, high)


def quantile(ordered: Sequence[float], of: float) -> float:
    """The value of which the share `of` of the sorted values is not larger.

    raises: ValueError  there are no values.
    """
    if not ordered:
        raise ValueError("no values to take a quantile of")
    return ordered[min(len(ordered) - 1, int(of * len(ordered)))]


def ratio(ours: Sequence[float], base: Sequence[float]) -> float:
    """The median of one contestant's rounds against the median of another's."""
    return median(ours) / median(base)
