"""Reads a run's `metrics.csv`."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caliper.errors import CaliperError

INDEX = ("phase", "env_steps", "updates", "wall_s", "cpu_s")


def read_metrics(path: Path | str) -> dict[str, NDArray[Any]]:
    """Reads a `metrics.csv` (or that of a run folder) into columns of one length.

    Returns:
        "phase" as strings, "env_steps" and "updates" as int64, others as float64, NaN where a row has none.

    Raises:
        CaliperError: there is no such file, or it is not a metrics file.
    """
    path = Path(path)
    path = path / "metrics.csv" if path.is_dir() else path
    columns, rows = read_table(path)
    kinds = {"phase": str, "env_steps": np.int64, "updates": np.int64}
    try:
        return {
            name: np.array([row.get(name) or "nan" for row in rows], dtype=str).astype(
                kinds.get(name, np.float64)
            )
            for name in columns
        }
    except ValueError as error:
        raise CaliperError(
            f"{path} holds something other than numbers ({error}); restore it or remove it."
        ) from error


def read_table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and rows, without empty cells and without a torn last line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CaliperError(
            f"Cannot read {path}: {error}; name a run folder that has a metrics.csv."
        ) from error
    table = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1])))
    if not table or tuple(table[0][: len(INDEX)]) != INDEX:
        raise CaliperError(f"{path} is not a metrics file: its first columns must be {', '.join(INDEX)}.")
    return table[0], [{k: v for k, v in zip(table[0], row, strict=False) if v} for row in table[1:]]
