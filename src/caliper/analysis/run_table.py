"""The numbers of runs, one row each, and their tables as files and as text."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from caliper.analysis.run_data import Run, read_run
from caliper.analysis.stats import area_under_curve
from caliper.errors import CaliperError
from caliper.utils.files import refuse_links, replacing
from caliper.utils.foreign import MOST_TABLE, ForeignFileError, read_text

LONGEST_NAME = 255  # bytes of a file's name
LATE = 5  # evaluations at the end of a run, of which the worst tells how stable it is


def write_runs(folder: Path, runs: Sequence[tuple[str, Path]]) -> list[tuple[str, Run]]:
    """Reads (variant, run folder) pairs, and writes runs.json and runs.csv of those that were evaluated.

    Returns:
        These variants and runs, in the same order.
    """
    found: list[tuple[str, Run]] = []
    for variant, path in runs:
        try:
            found.append((variant, read_run(path)))
        except CaliperError:
            continue
    found = [(variant, run) for variant, run in found if run.evaluations]
    with replacing(folder / "runs.json") as partial:
        text = json.dumps([record(run) for _, run in found], indent=1) + "\n"
        partial.write_text(text, encoding="utf-8")
    rows = [
        {"variant": variant, "run": os.path.relpath(run.folder, folder), **numbers(run)}
        for variant, run in found
    ]
    write_table(folder / "runs.csv", rows)
    return found


def runs_of(folder: Path) -> list[tuple[str, Path]]:
    """The runs of a sweep or a comparison: those in its runs.csv, then those that have begun since.

    Returns:
        (variant, run folder) as `write_sweep` takes them; none where there is no runs.csv.
    """
    if not (folder / "runs.csv").exists():
        return []
    refuse_links(folder)
    try:
        rows = list(csv.DictReader(read_text(folder / "runs.csv", MOST_TABLE).splitlines()))
        named = [(str(row["run"]), str(row["variant"])) for row in rows]
        for run, variant in named:
            if variant != variant_of(run):
                raise ForeignFileError(f"calls the variant of {run} {variant}, which is another")
            odd = run in ("", ".", "..") or "/" in run or len(run.encode()) > LONGEST_NAME
            if odd or (folder / run).is_symlink():
                raise ForeignFileError(f"names the run {run}, which is not in this folder")
    except (ForeignFileError, csv.Error) as error:
        raise CaliperError(f"{folder / 'runs.csv'} {error}; give the sweep's command again") from error
    except KeyError as error:
        raise CaliperError(
            f"{folder / 'runs.csv'} has no column {error}; give the sweep's command again"
        ) from error
    # A link would show a run that is not this sweep's, to whoever gets the page.
    begun = sorted(folder.glob("*/config.yaml"))
    found = [path.parent.name for path in begun if not path.parent.is_symlink()]
    runs = dict.fromkeys([run for run, _ in named if (folder / run).is_dir()] + found)
    return [(variant_of(run), folder / run) for run in runs]


def variant_of(name: str) -> str:
    """The variant of a sweep's run folder: its name without the seed; "all" where nothing else is swept."""
    words = re.sub(r"(^|,)seed=[^,]*", "", name).removeprefix(",") if "=" in name else ""
    return words or "all"


def record(run: Run) -> dict[str, Any]:
    """A run as one object: what it was, how it ended, and its whole curve."""
    config, online = run.config, run.last("online")
    looks = {
        phase: {name: look.success_once for name, look in last.others.items()}
        for phase in ("offline", "online")
        if (last := run.last(phase)) is not None and last.others
    }
    return {
        **{group: run.name_of(group) for group in ("task", "agent", "encoder")},
        "seed": config.get("seed"),
        "offline": _success(run, "offline"),
        "online": _success(run, "online"),
        "evaluations": [
            [e.phase, e.updates if e.phase == "offline" else e.env_steps, e.success_once, e.episodes]
            for e in run.evaluations
        ],
        **({"scores": [e.score for e in run.evaluations]} if _scored(run) else {}),
        **({"other_appearances": looks} if looks else {}),
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
        "area": area_under_curve([e.env_steps for e in online], [e.height for e in online]),
        "worst_late": min((e.height for e in online[-LATE:]), default=math.nan),
        "dip": run.dip,
        "regret": run.regret,
        "minutes": _last(run, "wall_s") / 60,
        "cpu_minutes": _last(run, "cpu_s") / 60,
    }


def _scored(run: Run) -> bool:
    """Whether there is more to tell than success: a number of tasks done, or a dense reward."""
    return any(e.score != e.success_once for e in run.evaluations)


def _success(run: Run, phase: str) -> float:
    last = run.last(phase)
    return last.height if last else math.nan


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
