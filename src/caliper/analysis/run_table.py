"""Many runs in one table and one figure: what a setting is worth over its seeds."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from caliper.analysis.plots import BLUE, GREEN, GREY, INK, ORANGE, RED, STYLE, thousands
from caliper.analysis.run_data import Run, read_run
from caliper.analysis.stats import align, area_under_curve
from caliper.errors import CaliperError
from caliper.utils.files import replacing
from caliper.utils.foreign import MOST_TABLE, ForeignFileError, read_text

LATE = 5  # evaluations at the end of a run, of which the worst tells how stable it is
COLOURS = (BLUE, RED, GREEN, ORANGE, INK, GREY)
# Column: how the seeds of a setting are summed up. The worst of them where a promise is about every seed.
COLUMNS: dict[str, Callable[[list[float]], float]] = {
    "offline": fmean,
    "online": fmean,
    "area": fmean,
    "worst_late": min,
    "dip": max,
    "regret": fmean,
    "minutes": fmean,
    "cpu_minutes": fmean,
}


def write_summary(folder: Path, runs: Sequence[tuple[str, Path]]) -> str:
    """Writes runs.json, runs.csv, settings.csv and curves.png into a folder, of runs finished or not.

    Args:
        folder: where the files go.
        runs: (setting, run folder); what is not there yet is left out.

    Returns:
        The table of settings as text.
    """
    found = write_runs(folder, runs)
    rows = [{"setting": setting, **numbers(run)} for setting, run in found]
    settings = list(dict.fromkeys(setting for setting, _ in found))
    means = [_over_seeds(setting, [row for row in rows if row["setting"] == setting]) for setting in settings]
    write_table(folder / "settings.csv", means)
    if found:
        with mpl.rc_context(STYLE), replacing(folder / "curves.png") as partial:
            curves(found).savefig(partial, dpi=160, format="png")
    return text_table(means)


def write_runs(folder: Path, runs: Sequence[tuple[str, Path]]) -> list[tuple[str, Run]]:
    """Reads (setting, run folder) pairs, and writes runs.json and runs.csv of those that were evaluated.

    Returns:
        These settings and runs, in the same order.
    """
    found: list[tuple[str, Run]] = []
    for setting, path in runs:
        try:
            found.append((setting, read_run(path)))
        except CaliperError:
            continue
    found = [(setting, run) for setting, run in found if run.evaluations]
    with replacing(folder / "runs.json") as partial:
        text = json.dumps([record(run) for _, run in found], indent=1) + "\n"
        partial.write_text(text, encoding="utf-8")
    rows = [
        {"setting": setting, "run": os.path.relpath(run.folder, folder), **numbers(run)}
        for setting, run in found
    ]
    write_table(folder / "runs.csv", rows)
    return found


def runs_of(folder: Path) -> list[tuple[str, Path]]:
    """The runs of a sweep or a comparison: those in its runs.csv, then those that have begun since.

    Returns:
        (setting, run folder) as `write_summary` takes them; none where there is no runs.csv.
    """
    if not (folder / "runs.csv").exists():
        return []
    try:
        rows = list(csv.DictReader(read_text(folder / "runs.csv", MOST_TABLE).splitlines()))
        named = [(str(row["run"]), str(row["setting"])) for row in rows]
        for run, setting in named:
            if setting != setting_of(run):
                raise ForeignFileError(f"calls the setting of {run} {setting}, which is another")
            if run in ("", ".", "..") or "/" in run or (folder / run).is_symlink():
                raise ForeignFileError(f"names the run {run}, which is not in this folder")
    except (ForeignFileError, csv.Error) as error:
        raise CaliperError(f"{folder / 'runs.csv'} {error}; give the sweep's command again") from error
    except KeyError as error:
        raise CaliperError(
            f"{folder / 'runs.csv'} has no column {error}; give the sweep's command again"
        ) from error
    found = [path.parent.name for path in sorted(folder.glob("*/config.yaml"))]
    runs = dict.fromkeys([run for run, _ in named if (folder / run).is_dir()] + found)
    return [(setting_of(run), folder / run) for run in runs]


def setting_of(name: str) -> str:
    """The setting of a sweep's run folder: its name without the seed; "all" where nothing else is swept."""
    words = re.sub(r"(^|,)seed=[^,]*", "", name).removeprefix(",") if "=" in name else ""
    return words or "all"


def record(run: Run) -> dict[str, Any]:
    """A run as one object: what it was, how it ended, and its whole curve."""
    config, online = run.config, run.last("online")
    return {
        **{group: run.name_of(group) for group in ("task", "agent", "encoder")},
        "seed": config.get("seed"),
        "offline": _success(run, "offline"),
        "online": _success(run, "online"),
        "evaluations": [
            [e.phase, e.updates if e.phase == "offline" else e.env_steps, e.success_once, e.episodes]
            for e in run.evaluations
        ],
        "env_steps": online.env_steps if online else 0,
        "minutes": round(_last(run, "wall_s") / 60, 1),
        "hardware": run.git.get("hardware"),
        "versions": run.git.get("versions"),
        "started": run.git.get("started"),
    }


def numbers(run: Run) -> dict[str, float]:
    """A run's columns of the table; NaN where it has not come so far.

    `area` is the mean height of the online curve, `worst_late` the worst of its last five evaluations, the
    final one included; `dip` and `regret` as in `caliper.analysis.stats`.
    """
    online = [e for e in run.phase("online") if e.env_steps > 0]
    return {
        "offline": _success(run, "offline"),
        "online": _success(run, "online"),
        "area": area_under_curve([e.env_steps for e in online], [e.success_once for e in online]),
        "worst_late": min((e.success_once for e in online[-LATE:]), default=math.nan),
        "dip": run.dip,
        "regret": run.regret,
        "minutes": _last(run, "wall_s") / 60,
        "cpu_minutes": _last(run, "cpu_s") / 60,
    }


def curves(runs: Iterable[tuple[str, Run]]) -> Figure:
    """Success of each setting: mean over its seeds, and their range, offline and then online."""
    by_setting: dict[str, list[Run]] = {}
    for setting, run in runs:
        by_setting.setdefault(setting, []).append(run)
    fig = Figure(figsize=(9, 3.8), layout="constrained")
    panels = fig.subplots(1, 2, sharey=True, width_ratios=[1.0, 1.6])
    for phase, ax in zip(("offline", "online"), panels, strict=True):
        for i, (setting, members) in enumerate(by_setting.items()):
            _band(ax, phase, members, COLOURS[i % len(COLOURS)], f"{setting} ({len(members)})")
        ax.set(title=phase.capitalize())
        ax.set_xlabel("gradient updates" if phase == "offline" else "environment steps")
        ax.xaxis.set_major_formatter(FuncFormatter(thousands))
    panels[0].set(ylim=(-0.02, 1.02), ylabel="success rate")
    panels[0].yaxis.set_major_formatter(PercentFormatter(1))
    panels[1].legend(loc="lower right")
    return fig


def _band(ax: Axes, phase: str, runs: list[Run], colour: str, label: str) -> None:
    lines = [
        np.array([(e.updates if phase == "offline" else e.env_steps, e.success_once) for e in evaluations])
        for run in runs
        if (evaluations := run.phase(phase))
    ]  # each (t, 2)
    if not lines:
        return
    x, y = align(lines)
    ax.fill_between(x, y.min(0), y.max(0), color=colour, alpha=0.15, lw=0)
    ax.plot(x, y.mean(0), "-", color=colour, label=label)


def _over_seeds(setting: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    line: dict[str, Any] = {"setting": setting, "seeds": len(rows)}
    for name, reduce in COLUMNS.items():
        values = [row[name] for row in rows if not math.isnan(row[name])]
        line[name] = reduce(values) if values else math.nan
    return line


def _success(run: Run, phase: str) -> float:
    last = run.last(phase)
    return last.success_once if last else math.nan


def _last(run: Run, column: str) -> float:
    values: Mapping[str, Any] = run.metrics
    return float(values[column][-1]) if column in values and len(values[column]) else math.nan


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes rows of the same keys as CSV, numbers with four digits; an empty file without rows."""
    buffer = io.StringIO()
    if rows:
        writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()})
    with replacing(path) as partial:
        partial.write_text(buffer.getvalue(), encoding="utf-8")


def text_table(rows: list[dict[str, Any]]) -> str:
    """Rows of the same keys as aligned text, for a terminal."""
    if not rows:
        return "nothing to sum up yet"
    cells = [list(rows[0])]
    cells += [[f"{v:.2f}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells
    )
