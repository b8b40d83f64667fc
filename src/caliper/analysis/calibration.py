"""Figures of whether the critic is calibrated: its values against the returns that followed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from caliper.analysis.plots import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PHASES,
    RED,
    has,
    mark_switch,
    series,
    smooth_line,
)
from caliper.analysis.run_data import Evaluation, Run

POINTS = 4000  # a scatter of more shows no more
BINS = 20


def calibration(run: Run) -> Figure | None:
    """Q(s, pi(s)) against the return that followed, with the diagonal, before and after fine-tuning."""
    shown = _with_critic(run)
    if not shown:
        return None
    fig = Figure(figsize=(4.4 * len(shown) + 0.2, 4.2), layout="constrained")
    both = np.concatenate([e.calibration[name] for e in shown for name in ("q", "mc_return")])
    pad = 0.05 * float(np.ptp(both)) or 1.0
    limits = (float(both.min()) - pad, float(both.max()) + pad)
    panels = fig.subplots(1, len(shown), sharex=True, sharey=True, squeeze=False)[0]
    for ax, e in zip(panels, shown, strict=True):
        q, g = e.calibration["q"], e.calibration["mc_return"]
        pick = np.random.default_rng(0).permutation(len(q))[:POINTS]
        for label, (colour, among) in outcomes(e).items():
            chosen = pick[among[pick]]
            ax.scatter(g[chosen], q[chosen], s=7, alpha=0.35, lw=0, color=colour)
            if among.any():
                ax.scatter([], [], s=30, color=colour, label=label)  # the legend's mark: large and opaque
        ax.plot(limits, limits, color=INK, lw=1, ls="--")
        ax.set(
            xlim=limits, ylim=limits, aspect="equal", title=_when(e), xlabel="discounted return that followed"
        )
        words = f"mean error of Q: {np.mean(q - g):+.2f}\nQ too high at {np.mean(q > g):.0%} of the steps"
        ax.text(0.03, 0.97, words, transform=ax.transAxes, va="top", fontsize=8.5)
        ax.legend(loc="lower right")
    panels[0].set_ylabel("Q(s, π(s))")
    return fig


def reliability(run: Run) -> Figure | None:
    """Mean Q and mean return by the number of steps left, before and after fine-tuning."""
    shown = _with_critic(run)
    if not shown:
        return None
    fig = Figure(figsize=(4.4 * len(shown) + 0.2, 3.4), layout="constrained")
    panels = fig.subplots(1, len(shown), sharex=True, sharey=True, squeeze=False)[0]
    for ax, e in zip(panels, shown, strict=True):
        x, q, g = by_time_to_go(e.calibration)
        ax.fill_between(
            x, q, g, where=q >= g, interpolate=True, color=ORANGE, alpha=0.2, lw=0, label="Q too high"
        )
        ax.fill_between(
            x, q, g, where=q <= g, interpolate=True, color=BLUE, alpha=0.12, lw=0, label="Q too low"
        )
        ax.plot(x, g, "-o", ms=3, color=INK, label="mean return that followed")
        ax.plot(x, q, "-o", ms=3, color=BLUE, label="mean Q(s, π(s))")
        ax.set(title=_when(e), xlabel="steps left in the episode")
    panels[0].legend(loc="best")
    panels[0].invert_xaxis()  # shared; time runs to the right
    panels[0].set_ylabel("value")
    return fig


def by_time_to_go(steps: Mapping[str, NDArray[Any]]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Steps left, Q and return, each averaged over the steps of one of at most 20 bins of the steps left."""
    left = steps["time_to_go"]
    edges = np.unique(np.linspace(left.min(), left.max() + 1, BINS + 1).astype(int))
    index = np.digitize(left, edges) - 1
    used = np.unique(index)
    x, q, g = (
        np.array([steps[name][index == i].mean() for i in used]) for name in ("time_to_go", "q", "mc_return")
    )
    return x, q, g


def values(run: Run) -> Figure | None:
    """How often the calibration binds; Q of data, policy and random actions; average Q and return."""
    candidates = {
        "data": ("critic/q_data", INK),
        "policy": ("critic/q_pi", BLUE),
        "random": ("critic/q_random", ORANGE),
    }
    curves = {label: curve for label, curve in candidates.items() if has(run, curve[0])}
    measured = [e for e in run.evaluations if e.calibration]
    bound = has(run, "critic/bound_rate")
    count = bool(bound) + bool(curves) + bool(measured)
    if not count:
        return None
    fig = Figure(figsize=(3.7 * count + 0.3, 3.3), layout="constrained")
    panels = iter(fig.subplots(1, count, squeeze=False)[0])
    if bound:
        ax = next(panels)
        for phase, colour in PHASES.items():
            x, y = series(run, "critic/bound_rate", phase)
            if len(x):
                smooth_line(ax, x, y, colour, f"{phase} (mean {y.mean():.0%})")
        ax.set(title="Bound rate", ylim=(-0.02, 1.02))
        ax.yaxis.set_major_formatter(PercentFormatter(1))
    if curves:
        ax = next(panels)
        for label, (name, colour) in curves.items():
            smooth_line(ax, *series(run, name), colour, f"{label} actions")
        ax.set(title="Mean Q in training")
    if measured:
        ax = next(panels)
        updates = [e.updates for e in measured]
        for name, colour, label in (("mc_return", INK, "average return"), ("q", BLUE, "average Q(s, π(s))")):
            ax.plot(updates, [e.calibration[name].mean() for e in measured], "o-", color=colour, label=label)
        ax.set(title="Q and return in evaluation")
    for ax in fig.axes:
        mark_switch(run, ax)
        ax.set_xlabel("gradient updates")
        ax.legend(loc="best")
    return fig


def _with_critic(run: Run) -> list[Evaluation]:
    """The last evaluation of each phase, where its critic was measured."""
    return [e for e in (run.last("offline"), run.last("online")) if e is not None and e.calibration]


def outcomes(e: Evaluation) -> dict[str, tuple[str, NDArray[np.bool_]]]:
    """Which steps belong to episodes that succeeded and that failed, as far as that was recorded."""
    episode = e.calibration["episode"].astype(int)
    if len(e.episode_success) <= episode.max() or episode.min() < 0:
        return {"steps": (GREY, np.ones(len(episode), dtype=bool))}
    won = np.array(e.episode_success)[episode]
    return {"episode succeeded": (GREEN, won), "episode failed": (RED, ~won)}


def _when(e: Evaluation) -> str:
    done = f"{e.env_steps:,} environment steps" if e.phase == "online" else f"{e.updates:,} updates"
    return f"{e.phase.capitalize()}, {done.replace(',', ' ')}"
