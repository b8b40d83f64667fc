"""Figures of how a run went: its learning curve and its losses; and the style that all figures share.

Each figure takes a run and returns None where the run lacks the data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from caliper.analysis.run_data import Run
from caliper.utils.metrics import lost_rows

Data = TypeVar("Data")

# Okabe and Ito's colours, told apart with any colour vision.
BLUE, ORANGE, GREEN, RED, GREY, INK = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#8A8F98", "#22262B"
COLOURS = (BLUE, RED, GREEN, ORANGE, INK, GREY)
PHASES = {"offline": BLUE, "online": RED}
STYLE: dict[Any, Any] = {
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E8EB",
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "text.parse_math": False,  # names come from files, and a dollar sign is no formula there
}


def draw(figure: Callable[[Data], Figure | None], data: Data) -> Figure | None:
    """Draws a figure in the shared style. Needs no display: a bare Figure is drawn by Agg, without pyplot."""
    with mpl.rc_context(STYLE):
        return figure(data)


def learning_curve(run: Run) -> Figure | None:
    """Success with Wilson bands: offline over gradient updates, then online over environment steps."""
    phases = [name for name in PHASES if run.phase(name)]
    if not phases:
        return None
    fig = Figure(figsize=(9, 3.8), layout=ConstrainedLayoutEngine(wspace=0.0, w_pad=0.05))
    widths = [1.0, 1.6] if len(phases) == 2 else [1.0]
    panels = fig.subplots(1, len(phases), sharey=True, squeeze=False, width_ratios=widths)[0]
    for name, ax in zip(phases, panels, strict=True):
        points = list(run.phase(name))
        x = [e.updates if name == "offline" else e.env_steps for e in points]
        before = run.last("offline") if name == "online" else None
        if before is not None and x[0] > 0:  # the curve goes on where the offline phase ended
            points, x = [before, *points], [0, *x]
        style: dict[str, Any] = {"color": PHASES[name]}
        if run.measure == "success":
            low, high = zip(*(e.interval for e in points), strict=True)
            ax.fill_between(x, low, high, alpha=0.15, lw=0, label="95% Wilson interval", **style)
        ax.plot(x, [e.height for e in points], "o-", label=run.measure, **style)
        ax.set(title=name.capitalize(), xlim=(0, max(x) * 1.03 or 1))
        ax.set_xlabel("gradient updates" if name == "offline" else "environment steps")
        ax.xaxis.set_major_locator(MaxNLocator(5 if name == "offline" else 7))
        ax.xaxis.set_major_formatter(FuncFormatter(thousands))
        if name == "online":
            _annotate_online(run, ax)
    panels[0].set(ylim=(-0.02, 1.02), ylabel=run.measure)
    panels[0].yaxis.set_major_formatter(PercentFormatter(1))
    panels[0].legend(loc="best")
    return fig


def _annotate_online(run: Run, ax: Axes) -> None:
    """Marks the offline level, the early stretch and the dip; writes dip and regret above."""
    offline, online = run.last("offline"), run.phase("online")
    words = [] if math.isnan(run.regret) else [f"regret {run.regret:.2f}"]
    if offline is not None:
        level, end = offline.height, online[-1].env_steps
        ax.axhline(level, color=BLUE, lw=1, ls="--")
        place: dict[str, Any] = {
            "xy": (0.995, level),
            "xycoords": ("axes fraction", "data"),
            "ha": "right",
            "color": BLUE,
        }
        ax.annotate("last offline", xytext=(0, 3), textcoords="offset points", fontsize=8.5, **place)
        ax.axvspan(0, 0.2 * end, color=GREY, alpha=0.1, lw=0)
        if not math.isnan(run.dip):
            words.append(f"dip {run.dip:.2f}" if run.dip > 0 else "no dip")
        if run.dip > 0:
            worst = min((e for e in online if e.env_steps <= 0.2 * end), key=lambda e: e.height)
            arrow = {"arrowstyle": "->", "color": INK, "lw": 1.2, "shrinkA": 0, "shrinkB": 3}
            x = worst.env_steps
            ax.annotate("", (x, worst.height), (x, level), arrowprops=arrow)
    ax.set_title("    ".join(words), loc="right", fontweight="normal")


def losses(run: Run) -> Figure | None:
    """Every logged loss, the entropy and the temperature, over gradient updates."""
    words = ("loss", "entropy", "alpha", "temperature")
    names = [n for n in run.metrics if any(w in n.rsplit("/")[-1] for w in words) and has(run, n)]
    if not names:
        return None
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    fig = Figure(figsize=(3.1 * columns + 0.2, 2.2 * rows + 0.2), layout="constrained")
    for i, ax in enumerate(fig.subplots(rows, columns, sharex=True, squeeze=False).ravel()):
        if i >= len(names):
            ax.set_axis_off()
            continue
        mark_switch(run, ax)
        smooth_line(ax, *series(run, names[i]), BLUE, names[i])
        ax.set_title(names[i], fontweight="normal", fontsize=9)
        if i + columns >= len(names):
            ax.set_xlabel("gradient updates")
            ax.tick_params(labelbottom=True)
    return fig


def has(run: Run, name: str) -> bool:
    """Whether a metric has any number in it."""
    return name in run.metrics and bool(np.isfinite(run.metrics[name]).any())


def series(run: Run, name: str, phase: str | None = None) -> tuple[NDArray[Any], NDArray[Any]]:
    """Updates and values of a metric, where it has any, in one phase or both."""
    keep = np.isfinite(run.metrics[name])
    if phase is not None:
        keep &= run.metrics["phase"] == phase
    return run.metrics["updates"][keep], run.metrics[name][keep]


def smooth_line(ax: Axes, x: NDArray[Any], y: NDArray[Any], colour: str, label: str) -> None:
    """The series, pale, under its running mean over a thirtieth of its length."""
    width = len(y) // 30
    if width < 2:
        ax.plot(x, y, color=colour, label=label)
        return
    ax.plot(x, y, color=colour, alpha=0.22, lw=0.8)
    count = np.convolve(np.ones_like(y), np.ones(width), "same")
    ax.plot(x, np.convolve(y, np.ones(width), "same") / count, color=colour, label=label)


def mark_switch(run: Run, ax: Axes) -> None:
    """Draws the switch to the online phase on an axis of gradient updates."""
    ax.xaxis.set_major_formatter(FuncFormatter(thousands))
    if run.switch is not None:
        ax.axvline(run.switch, color=GREY, lw=1, ls="--")
    for until, _ in lost_rows(run.metrics):
        before = run.metrics["updates"][run.metrics["updates"] < until]
        ax.axvspan(
            before.max() if len(before) else 0, until, color=ORANGE, alpha=0.25, lw=0, label="rows lost"
        )


def thousands(value: float, _: Any = None) -> str:
    """2000 as 2k, 1500000 as 1.5M."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"
