"""A figure of the four usual reasons why a pixel critic spoils its policy, each with its evidence."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from caliper.analysis.calibration import outcomes
from caliper.analysis.plots import BLUE, GREEN, INK, ORANGE, RED, has, mark_switch, series
from caliper.analysis.run_data import Evaluation, Run

RECENT = 10  # ends of collected episodes over which their success is averaged


def failure_diagnostics(run: Run) -> Figure | None:
    """Q off the data; Q around the policy; drift of the encoder; width of the policy."""
    shown = [e for e in run.evaluations if "q_best" in e.calibration]
    if not shown:
        return None
    fig = Figure(figsize=(8.2, 6.2), layout="constrained")
    ((off_data, rough), (drift, width)) = fig.subplots(2, 2)
    _off_data(off_data, shown)
    _rough(rough, shown)
    _drift(drift, [e for e in shown if e.features is not None])
    _width(width, shown, run)
    for ax in fig.axes[:4]:
        mark_switch(run, ax)
        ax.set_xlabel("gradient updates")
        if ax.get_legend_handles_labels()[0]:
            ax.legend(loc="best")
    return fig


def cka(x: NDArray[Any], y: NDArray[Any]) -> float:
    """Linear centred kernel alignment of two feature matrices (n, f) and (n, g) of the same n inputs.

    1 where one is a rotation and scaling of the other, 0 where they have nothing linear in common (Kornblith
    et al. 2019, arXiv:1905.00414).
    """
    x, y = (np.asarray(z, dtype=np.float64) - np.mean(z, 0) for z in (x, y))
    scale = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(np.linalg.norm(y.T @ x) ** 2 / scale) if scale > 0 else 0.0


def _off_data(ax: Axes, shown: list[Evaluation]) -> None:
    at = [e.updates for e in shown]
    for name, colour, label in (
        ("mc_return", INK, "return that followed"),
        ("q", BLUE, "Q of the action taken"),
        ("q_random", ORANGE, "Q of uniform actions, mean"),
        ("q_random_best", RED, "Q of uniform actions, best of 64"),
    ):
        ax.plot(at, [e.calibration[name].mean() for e in shown], "o-", ms=3, color=colour, label=label)
    ax.set(title="Does Q overestimate off the data?", ylabel="value")


def _rough(ax: Axes, shown: list[Evaluation]) -> None:
    points: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for e in shown:
        above = e.calibration["q_best"] - e.calibration["q"]
        for label, (colour, among) in outcomes(e).items():
            if among.any():
                points.setdefault((label, colour), []).append((e.updates, above[among].mean()))
    for (label, colour), line in points.items():
        ax.plot(*zip(*line, strict=True), "o-", ms=3, color=colour, label=label)
    ax.axhline(0, color=INK, lw=0.8)
    ax.set(title="Is Q rough around the policy?", ylabel="best of 64 samples, above Q taken")


def _drift(ax: Axes, shown: list[Evaluation]) -> None:
    features = [e.features for e in shown if e.features is not None]
    at = [e.updates for e in shown][1:]
    before = [1 - cka(a, b) for a, b in pairwise(features)]
    first = [1 - cka(features[0], b) for b in features[1:]]
    ax.plot(at, before, "o-", ms=3, color=BLUE, label="since the evaluation before")
    ax.plot(at, first, "o-", ms=3, color=ORANGE, label="since the first")
    ax.set(title="Does the encoder drift?", ylabel="1 - CKA")
    ax.set_ylim(bottom=0)


def _width(ax: Axes, shown: list[Evaluation], run: Run) -> None:
    at = [e.updates for e in shown]
    ax.plot(at, [e.height for e in shown], "o-", ms=3, color=GREEN, label=f"{run.measure}, greedy")
    if has(run, "collect/success"):
        x, y = series(run, "collect/success")
        recent = np.convolve(y, np.ones(RECENT))[: len(y)] / np.minimum(np.arange(len(y)) + 1, RECENT)
        ax.plot(x, recent, color=ORANGE, label="success, sampled while collecting")
    ax.plot(at, [e.calibration["width"].mean() for e in shown], "o--", ms=3, color=BLUE, label="policy's std")
    ax.set(title="Is the greedy action that of a wide policy?", ylim=(-0.02, 1.02))
