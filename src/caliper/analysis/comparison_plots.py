"""Figures that set variants side by side; each returns None where the data are missing."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from caliper.analysis.calibration import by_time_to_go
from caliper.analysis.plots import BLUE, COLOURS, GREY, INK, PHASES, has, mark_switch, series, thousands
from caliper.analysis.run_data import Run
from caliper.analysis.stats import align, interquartile_mean, stratified_bootstrap
from caliper.analysis.variant import Variant

Variants = Sequence[Variant]
COLUMNS = 3  # panels beside each other
DASHES = ("-", "--", ":")  # told apart where there are more variants than colours
DRAWS = 500  # of a band's bootstrap at each of its points
GROUPS = 10  # of steps with like Q
POINTS = 1500


def success(variants: Variants) -> Figure | None:
    """Success of each variant, offline and then over environment steps: interquartile mean and interval."""
    begun = [variant for variant in variants if variant.runs]
    if not begun:
        return None
    fig = Figure(figsize=(9, 3.9 + 0.2 * math.ceil(len(variants) / 2)), layout="constrained")
    panels = fig.subplots(1, 2, sharey=True, width_ratios=[1.0, 1.6])
    for phase, ax in zip(PHASES, panels, strict=True):
        for i, variant in enumerate(variants):
            lines = [line for run in variant.runs if len(line := _curve(run, phase))]
            if lines:
                style = {"color": COLOURS[i % len(COLOURS)], "ls": DASHES[i // len(COLOURS) % len(DASHES)]}
                _band(ax, lines, style, f"{variant.name} ({len(variant.runs)})")
        ax.set(title=phase.capitalize())
        ax.set_xlabel("gradient updates" if phase == "offline" else "environment steps")
        ax.xaxis.set_major_locator(MaxNLocator(5 if phase == "offline" else 7))
        ax.xaxis.set_major_formatter(FuncFormatter(thousands))
    panels[0].set(ylim=(-0.02, 1.02), ylabel=begun[0].measure)
    panels[0].yaxis.set_major_formatter(PercentFormatter(1))
    entries = _entries(panels)
    columns = 2 if len(variants) <= len(COLOURS) else 3
    fig.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=columns)
    return fig


def _curve(run: Run, phase: str) -> NDArray[np.float64]:
    """Points (t, 2) of a run in a phase; the online curve begins where the offline one ended."""
    points = [(e.updates if phase == "offline" else e.env_steps, e.height) for e in run.phase(phase)]
    before = run.last("offline") if phase == "online" else None
    if before is not None and points and points[0][0] > 0:
        points = [(0, before.height), *points]
    return np.array(points, dtype=np.float64)


def _band(ax: Axes, lines: list[NDArray[np.float64]], style: dict[str, Any], label: str) -> None:
    x, y = align(lines)  # (t,), (seeds, t)
    middle = [interquartile_mean(column) for column in y.T]
    ax.plot(x, middle, "o", ms=2.5, color=style["color"])
    ax.plot(x, middle, label=label, **style)
    if len(lines) > 1 and len(x):
        ends = np.array([stratified_bootstrap(column[:, None], samples=DRAWS) for column in y.T])
        ax.fill_between(x, ends[:, 0], ends[:, 1], color=style["color"], alpha=0.13, lw=0)


def q_and_return(variants: Variants) -> Figure | None:
    """Average Q along the evaluation episodes and the average return that followed, at each evaluation."""

    def panel(ax: Axes, variant: Variant) -> None:
        runs = [run for run in variant.runs if any(e.calibration for e in run.evaluations)]
        for name, colour, label in (("mc_return", INK, "return that followed"), ("q", BLUE, "Q(s, π(s))")):
            measured = [[e for e in run.evaluations if e.calibration] for run in runs]
            lines = [np.array([(e.updates, e.calibration[name].mean()) for e in es]) for es in measured]
            for line in lines:
                ax.plot(*line.T, color=colour, alpha=0.25, lw=0.8)
            x, y = align(lines)
            ax.plot(x, y.mean(0), "o-", ms=3, color=colour, label=label)
        mark_switch(runs[0], ax)
        ax.xaxis.set_major_locator(MaxNLocator(4))

    with_critic = [s for s in variants if any(e.calibration for run in s.runs for e in run.evaluations)]
    return _panels(with_critic, panel, "gradient updates", "average value")


def reliability_diagram(variants: Variants) -> Figure | None:
    """Q(s, π(s)) against the return that followed, at the last evaluation of each phase."""

    def panel(ax: Axes, variant: Variant) -> None:
        for phase, colour in PHASES.items():
            if steps := variant.steps(phase):
                q, g = steps["q"], steps["mc_return"]
                pick = np.random.default_rng(0).permutation(len(q))[:POINTS]
                ax.scatter(g[pick], q[pick], s=4, alpha=0.15, lw=0, color=colour)
                ax.plot(*by_value(q, g)[::-1], "o-", ms=4, color=colour, label=f"last {phase}")
        ends = [min(ax.get_xlim()[0], ax.get_ylim()[0]), max(ax.get_xlim()[1], ax.get_ylim()[1])]
        ax.plot(ends, ends, color=INK, lw=1, ls="--")
        ax.set(xlim=ends, ylim=ends, aspect="equal")

    shown = [s for s in variants if s.steps("offline") or s.steps("online")]
    return _panels(shown, panel, "return that followed", "Q(s, π(s))", height=3.0)


def by_value(q: NDArray[Any], g: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Mean Q and mean return of ten groups of equally many steps, from the lowest Q to the highest."""
    groups = [group for group in np.array_split(np.argsort(q, kind="stable"), GROUPS) if len(group)]
    return np.array([q[group].mean() for group in groups]), np.array([g[group].mean() for group in groups])


def time_to_go(variants: Variants) -> Figure | None:
    """Mean Q and mean return by the steps left in the episode, at the last evaluation of each phase."""

    def panel(ax: Axes, variant: Variant) -> None:
        for phase, colour in PHASES.items():
            if steps := variant.steps(phase):
                left, q, g = by_time_to_go(steps)
                ax.plot(left, q, color=colour, label=f"Q, last {phase}")
                ax.plot(left, g, color=colour, ls=":", label="return that followed")
        ax.invert_xaxis()  # time runs to the right

    shown = [s for s in variants if s.steps("offline") or s.steps("online")]
    return _panels(shown, panel, "steps left in the episode", "value")


def bound_rate(variants: Variants) -> Figure | None:
    """How often the calibration binds, in each phase: mean over updates and seeds, a dot for each seed."""

    def rates(variant: Variant, phase: str) -> list[float]:
        logged = [
            series(run, "critic/bound_rate", phase)[1]
            for run in variant.finished
            if has(run, "critic/bound_rate")
        ]
        return [float(values.mean()) for values in logged if len(values)]

    return _bars(
        [s for s in variants if any(rates(s, phase) for phase in PHASES)],
        {phase: (colour, lambda s, phase=phase: rates(s, phase)) for phase, colour in PHASES.items()},
        "share of the policy's actions whose value the recorded return holds up",
        PercentFormatter(1, decimals=0),
    )


def times(variants: Variants) -> Figure | None:
    """Minutes that a run takes, by the clock and of CPU: mean over the finished seeds."""
    shown = [s for s in variants if not math.isnan(s.minutes())]
    clocks = {"by the clock": (BLUE, "minutes"), "CPU": (GREY, "cpu_minutes")}
    return _bars(
        shown,
        {
            label: (colour, lambda s, clock=clock: [s.minutes(clock)])
            for label, (colour, clock) in clocks.items()
        },
        "minutes a run",
        FuncFormatter(thousands),
    )


def _bars(
    variants: Variants,
    groups: dict[str, tuple[str, Callable[..., list[float]]]],
    label: str,
    formatter: FuncFormatter | PercentFormatter,
) -> Figure | None:
    """Horizontal bars, the first variant on top, one colour for each group; a dot for each of its values."""
    if not variants:
        return None
    fig = Figure(figsize=(9, 0.9 + 0.5 * len(variants)), layout="constrained")
    ax = fig.subplots()
    thick = 0.8 / len(groups)
    for i, (name, (colour, values)) in enumerate(groups.items()):
        at = np.arange(len(variants)) + thick * (i - (len(groups) - 1) / 2)
        found = [values(variant) for variant in variants]
        ax.barh(at, [fmean(v) if v else 0 for v in found], thick * 0.9, color=colour, alpha=0.75, label=name)
        for y, several in zip(at, found, strict=True):
            if len(several) > 1:
                ax.plot(several, [y] * len(several), "o", ms=3, color=INK)
    ax.set_yticks(np.arange(len(variants)), [_wrap(s.name) for s in variants])
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.set_xlabel(label)
    ax.xaxis.set_major_formatter(formatter)
    fig.legend(loc="outside upper right", ncols=len(groups))
    return fig


def _panels(
    variants: Variants, draw: Callable[[Axes, Variant], None], x: str, y: str, height: float = 2.5
) -> Figure | None:
    """A panel per variant, with one legend for all."""
    if not variants:
        return None
    columns = min(COLUMNS, len(variants))
    rows = math.ceil(len(variants) / columns)
    fig = Figure(figsize=(9 if columns > 1 else 5, height * rows + 0.6), layout="constrained")
    grid = fig.subplots(rows, columns, squeeze=False)
    for i, ax in enumerate(grid.ravel()):
        if i >= len(variants):
            ax.set_axis_off()
            continue
        draw(ax, variants[i])
        ax.set_title(_wrap(variants[i].name))
        if i + columns >= len(variants):
            ax.set_xlabel(x)
        if i % columns == 0:
            ax.set_ylabel(y)
    entries = _entries(grid.ravel())
    fig.legend(entries.values(), entries.keys(), loc="outside upper right", ncols=len(entries))
    return fig


def _entries(panels: Iterable[Axes]) -> dict[str, Any]:
    """Each label of the panels' legends once, with its mark."""
    pairs = (zip(*ax.get_legend_handles_labels(), strict=True) for ax in panels)
    return {label: mark for of_one in pairs for mark, label in of_one}


def _wrap(name: str) -> str:
    return textwrap.fill(name.replace(",", ", "), 30)
