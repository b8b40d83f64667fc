"""Reads a run's `metrics.csv`."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caliper.errors import CaliperError, printable
from caliper.utils.foreign import MOST_TABLE, ForeignFileError, read_text

INDEX = ("phase", "env_steps", "updates", "wall_s", "cpu_s")


LOST = "log/lost_rows"  # a row with it stands where rows before it could not be restored; their number
MOST_COLUMNS = 1000
_INTEGERS = ("env_steps", "updates")
_LARGEST = 1 << 53


@dataclass(frozen=True, slots=True)
class Table:
    """A metrics file: rows without their empty cells, and how many could not be read."""

    columns: list[str]
    rows: list[dict[str, str]]
    damaged: int = 0


def read_metrics(path: Path | str) -> dict[str, NDArray[Any]]:
    """Reads a `metrics.csv` (or that of a run folder) into columns of one length.

    Returns:
        "phase" as strings, "env_steps" and "updates" as int64, others as float64, NaN where a row has none.

    Raises:
        CaliperError: there is no such file, it is not a metrics file, or a row of it is damaged.
    """
    path = Path(path)
    path = path / "metrics.csv" if path.is_dir() else path
    table = read_table(path)
    if table.damaged:
        raise CaliperError(
            f"{path} holds something other than numbers in {table.damaged} rows; restore it or remove it."
        )
    return columns(table)


def columns(table: Table) -> dict[str, NDArray[Any]]:
    """The rows of a table as columns, see `read_metrics`."""
    kinds = {"phase": str, "env_steps": np.int64, "updates": np.int64}
    return {
        name: np.array([row.get(name) or "nan" for row in table.rows], dtype=str).astype(
            kinds.get(name, np.float64)
        )
        for name in table.columns
    }


def read_table(path: Path) -> Table:
    """Columns and rows, without a torn last line and without rows that are none.

    Raises:
        CaliperError: the file cannot be read, or it is not a metrics file.
    """
    try:
        text = read_text(path, MOST_TABLE)
        table = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1], newline="")))
    except (ForeignFileError, csv.Error) as error:
        raise CaliperError(
            f"Cannot read {path}: it {error}; restore it, remove it, or name a run folder that has one."
        ) from error
    if not table or tuple(table[0][: len(INDEX)]) != INDEX:
        raise CaliperError(f"{path} is not a metrics file: its first columns must be {', '.join(INDEX)}.")
    names = table[0]
    odd = [name for name in names if not 0 < len(name) <= 100 or name != printable(name)]
    if odd or len(set(names)) < len(names) or len(names) > MOST_COLUMNS:
        what = f"a column is called {odd[0]!r}" if odd else "a name occurs twice, or there are too many"
        raise CaliperError(f"{path} is not a metrics file: {what}; restore it or remove it.")
    rows = [{k: v for k, v in zip(names, row, strict=True) if v} for row in table[1:] if _fits(names, row)]
    return Table(names, rows, len(table) - 1 - len(rows))


def lost_rows(metrics: Mapping[str, NDArray[Any]]) -> list[tuple[int, float]]:
    """Where rows are missing that could not be restored at a resume: updates then, and how many."""
    if LOST not in metrics:
        return []
    at = np.flatnonzero(np.isfinite(metrics[LOST]))
    return [(int(metrics["updates"][i]), float(metrics[LOST][i])) for i in at]


def rows_digest(rows: Sequence[Mapping[str, str]]) -> str:
    """SHA-256 of rows, whatever the order of the columns."""
    return hashlib.sha256(b"".join(map(row_bytes, rows))).hexdigest()


def row_bytes(row: Mapping[str, str]) -> bytes:
    """A row's part of the checksum: its cells by name, the empty ones left out."""
    return json.dumps({k: v for k, v in row.items() if v}, sort_keys=True).encode("ascii") + b"\n"


def _fits(names: Sequence[str], row: Sequence[str]) -> bool:
    """Whether a row has a cell for each column, with a number in it or nothing."""
    if len(row) != len(names) or not all(row[: len(INDEX)]):
        return False
    try:
        for name, cell in zip(names, row, strict=True):
            if name in _INTEGERS:
                if not 0 <= int(cell) < _LARGEST:
                    return False
            elif name != "phase" and cell:
                float(cell)
    except ValueError:
        return False
    return row[names.index("phase")] in ("offline", "online")
