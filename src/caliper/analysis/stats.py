"""Statistics of success rates and of learning curves. Numpy only."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def wilson(successes: int, episodes: int, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of a success rate (Wilson 1927, J. Am. Stat. Assoc. 22, p. 209).

    Unlike the normal approximation it stays inside [0, 1] and has a width at 0 and at `episodes` successes.

    Returns:
        Lower and upper end; (0, 1) when there are no episodes.
    """
    if not 0 <= successes <= episodes:
        raise ValueError(f"{successes} successes out of {episodes} episodes")
    if episodes == 0:
        return 0.0, 1.0
    z2 = NormalDist().inv_cdf(0.5 + confidence / 2) ** 2
    rate = successes / episodes
    centre = (rate + z2 / (2 * episodes)) / (1 + z2 / episodes)
    half = np.sqrt(z2 * (rate * (1 - rate) / episodes + z2 / (4 * episodes**2))) / (1 + z2 / episodes)
    # At the ends one limit is the rate itself; rounding must not put it on the other side.
    return min(rate, max(0.0, float(centre - half))), max(rate, min(1.0, float(centre + half)))


def sign_test(gained: int, lost: int) -> float:
    """Two-sided exact p-value that paired starts change for better and worse alike (McNemar's exact test).

    Args:
        gained: starts that failed before and succeed now.
        lost: starts that succeeded before and fail now.
    """
    changed = gained + lost
    tails = 2 * sum(math.comb(changed, k) for k in range(min(gained, lost) + 1))
    return float(min(1.0, tails / 2**changed))


def interquartile_mean(values: ArrayLike) -> float:
    """Mean of the middle half: a quarter of the values, rounded down, is dropped at each end.

    The aggregate recommended by Agarwal et al. 2021 (arXiv:2108.13264), over all runs and tasks pooled.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64), axis=None)
    drop = len(ordered) // 4
    return float(ordered[drop : len(ordered) - drop].mean())


def stratified_bootstrap(
    scores: ArrayLike,
    statistic: Callable[[Floats], float] = interquartile_mean,
    samples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of a statistic over runs and tasks (Agarwal et al. 2021, arXiv:2108.13264).

    Args:
        scores: (runs, tasks). Runs are redrawn with replacement within each task; tasks are kept.
        statistic: maps (runs, tasks) to a number.
        samples: number of redraws.
        confidence: coverage of the interval.
        seed: of the redraws.
    """
    table = np.asarray(scores, dtype=np.float64)  # (runs, tasks)
    if table.ndim != 2:
        raise ValueError(f"scores must be (runs, tasks), not {table.shape}")
    runs, tasks = table.shape
    rows = np.random.default_rng(seed).integers(runs, size=(samples, runs, tasks))
    draws = np.array([statistic(table[row, np.arange(tasks)]) for row in rows])
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def area_under_curve(x: ArrayLike, y: ArrayLike) -> float:
    """Mean height of a curve over its range of x, by the trapezoidal rule; NaN without points."""
    x, y = _curve(x, y)
    if len(x) < 2 or x[-1] == x[0]:
        return float(y.mean()) if len(y) else float("nan")
    return float(np.trapezoid(y, x) / (x[-1] - x[0]))


def align(lines: Sequence[Floats]) -> tuple[Floats, Floats]:
    """Curves of several seeds on the x that all of them cover, with straight lines between their points.

    Args:
        lines: (t, 2) each, x and y, x ascending; at least one, none of them empty.

    Returns:
        x (t,), every x of any line where all lines have begun and none has ended, and y (seeds, t).
    """
    x = np.unique(np.concatenate([line[:, 0] for line in lines]))
    x = x[(x >= max(line[0, 0] for line in lines)) & (x <= min(line[-1, 0] for line in lines))]
    return x, np.array([np.interp(x, line[:, 0], line[:, 1]) for line in lines])


def regret(env_steps: ArrayLike, success: ArrayLike) -> float:
    """Cumulative regret of online fine-tuning: the average of 1 - success (Cal-QL, arXiv:2303.05479).

    Args:
        env_steps: (t,) environment steps of the online evaluations.
        success: (t,) success rates in [0, 1].

    Returns:
        The mean over evaluations that are equally spaced, and the trapezoidal average where they are not.
        0 is perfect from the first step on, 1 is no success at all; NaN without evaluations.
    """
    x, y = _curve(env_steps, success)
    gaps = np.diff(x)
    if len(y) == 0:
        return float("nan")
    # A loop over whole episodes overshoots its interval by a little: 1 % still counts as equal.
    if np.allclose(gaps, gaps.mean() if len(gaps) else 0.0, rtol=0.01):
        return float(1 - y.mean())
    return 1 - area_under_curve(x, y)


def dip(
    env_steps: ArrayLike,
    success: ArrayLike,
    offline: float,
    total_steps: float | None = None,
    window: float = 0.2,
) -> float:
    """Largest fall below the last offline success early in the online phase ("unlearning" of a policy).

    Args:
        env_steps: (t,) environment steps since the switch, of the online evaluations.
        success: (t,) success rates.
        offline: success of the last offline evaluation.
        total_steps: length of the online phase; the last evaluation's step if absent.
        window: the share of the online phase that counts as early.

    Returns:
        The fall, 0 where success never falls below `offline`, NaN where nothing was evaluated early.
    """
    x, y = _curve(env_steps, success)
    if len(x) == 0:
        return float("nan")
    early = y[x <= window * (x[-1] if total_steps is None else total_steps)]
    return max(0.0, float(offline - early.min())) if len(early) else float("nan")


def _curve(x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if xs.shape != ys.shape or xs.ndim != 1:
        raise ValueError(f"a curve needs x and y of the same length, not {xs.shape} and {ys.shape}")
    order = np.argsort(xs, kind="stable")
    return xs[order], ys[order]
