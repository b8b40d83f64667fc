"""The numbers of a run: `metrics.csv`, always; Weights & Biases, offline unless told else; TensorBoard."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from caliper.errors import CaliperError
from caliper.utils.files import replacing
from caliper.utils.metrics import INDEX, LOST, Table, read_table, row_bytes, rows_digest


class Logger:
    """Appends rows to `metrics.csv`, each in the file before `log` returns, and on the disk after `sync`.

    The table is wide: a metric first seen late adds a column, and earlier rows stay empty there. A row is
    appended in place; only a new column rewrites the file. A context manager.

    Attributes:
        rows: rows in the table.

    Args:
        folder: the run folder. An existing `metrics.csv` is continued, its wall clock included.
        wandb: keyword arguments of `wandb.init` (project, name, mode, ...). The mode is "offline" by default,
            so nothing needs an account or a network. "disabled", or None here, does not even import wandb.
        config: shown beside the curves in wandb.
        tensorboard: whether `tensorboard/` in the folder shall hold what the table holds, over the updates.
            It is written anew from the table whenever a run starts or goes back, so no point is there twice.

    Raises:
        CaliperError: the file cannot be written, or wandb or TensorBoard does not start.
    """

    def __init__(
        self,
        folder: Path | str,
        wandb: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
        tensorboard: bool = False,
    ) -> None:
        self.path = Path(folder) / "metrics.csv"
        table = read_table(self.path) if self.path.exists() else Table(list(INDEX), [])
        self._columns, rows = table.columns, table.rows
        self._rewrite(rows)  # also drops a last line that a kill has torn, and what is no row
        self._start_clock(rows)
        self._wandb = _start_wandb(Path(folder), wandb, config)
        self._events: Any = None
        if tensorboard:
            self._start_tensorboard(rows)

    def log(self, phase: str, env_steps: int, updates: int, metrics: Mapping[str, float | Tensor]) -> None:
        """Adds a row.

        Args:
            phase: "offline" or "online".
            env_steps: environment steps taken so far.
            updates: gradient updates made so far.
            metrics: numbers or 0-d tensors. Here alone tensors leave their device, all at once.
        """
        floats = to_floats(metrics)
        wall, cpu = time.perf_counter() - self._zero, time.process_time() - self._zero_cpu
        row = {"phase": phase, "env_steps": str(env_steps), "updates": str(updates)}
        row |= {"wall_s": f"{wall:.3f}", "cpu_s": f"{cpu:.3f}"}
        # Nine digits tell any two float32 numbers apart.
        row |= {name: f"{value:.9g}" for name, value in floats.items()}
        new = [name for name in row if name not in self._columns]
        if new:
            rows = read_table(self.path).rows
            self._columns += new
            self._rewrite([*rows, row])
        else:
            self._append(row)
        if self._wandb is not None:
            index = {"phase": phase, "env_steps": env_steps, "updates": updates, "wall_s": wall, "cpu_s": cpu}
            self._wandb.log({**index, **floats})
        if self._events is not None:
            self._draw(row)

    def sync(self) -> None:
        """Brings all rows to the disk, which `log` leaves to the system: waiting for it at each row is slow.

        Raises:
            CaliperError: the disk fails.
        """
        try:
            with open(self.path, "rb") as file:
                os.fsync(file.fileno())
        except OSError as error:
            raise CaliperError(
                f"Cannot write {self.path}: {error.strerror}; free some space and resume."
            ) from error

    def mark(self) -> dict[str, Any]:
        """How far the table is, for a checkpoint: its `rows`, and their `sha256`."""
        return {"rows": self.rows, "sha256": self._seal.hexdigest()}

    def truncate(self, rows: int, sha256: str | None = None) -> int | None:
        """Keeps the first `rows` rows, those before a checkpoint: a resumed run repeats none of its curve.

        Args:
            rows: how many there were.
            sha256: of them, as `mark` gave it; None does not compare.

        Returns:
            None if they are all there; else how many are missing, 0 if some have been changed. The rest is
            kept as it is.
        """
        kept = read_table(self.path).rows[:rows]
        if whole := len(kept) == rows and sha256 in (None, rows_digest(kept)):
            self._rewrite(kept)
        else:
            while kept and LOST in kept[-1]:  # of an attempt to resume that was killed before it was saved
                kept.pop()
            self._rewrite(kept)
        self._start_clock(kept)
        if self._events is not None:
            self._start_tensorboard(kept)
        return None if whole else rows - len(kept)

    def close(self) -> None:
        """Ends the wandb run and TensorBoard's file, if there are any."""
        if self._events is not None:
            self._events.close()
            self._events = None
        if self._wandb is not None:
            self._wandb.finish()
            self._wandb = None

    def __enter__(self) -> Logger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start_clock(self, rows: Sequence[Mapping[str, str]]) -> None:
        self._zero = time.perf_counter() - (float(rows[-1]["wall_s"]) if rows else 0.0)
        self._zero_cpu = time.process_time() - (float(rows[-1]["cpu_s"]) if rows else 0.0)

    def _start_tensorboard(self, rows: Sequence[Mapping[str, str]]) -> None:
        """Begins TensorBoard's file anew with the rows so far."""
        folder = self.path.parent / "tensorboard"
        try:
            from torch.utils.tensorboard import SummaryWriter

            if self._events is not None:
                self._events.close()
            for old in folder.glob("events.out.tfevents.*"):
                old.unlink()
            self._events = SummaryWriter(str(folder))
        except (ImportError, OSError) as error:
            raise CaliperError(
                f"TensorBoard does not start ({error}); go on without it: log.tensorboard=false."
            ) from error
        for row in rows:
            self._draw(row)

    def _draw(self, row: Mapping[str, str]) -> None:
        """Adds a row's numbers to TensorBoard, at the time that the run's clock says."""
        seconds = time.time() - (time.perf_counter() - self._zero) + float(row["wall_s"])
        for name, value in row.items():
            if value and name not in ("phase", "updates", "wall_s"):
                self._events.add_scalar(name, float(value), int(row["updates"]), seconds)

    def _append(self, row: Mapping[str, str]) -> None:
        try:
            with open(self.path, "a", newline="", encoding="utf-8") as file:
                file.write(_lines([[row.get(name, "") for name in self._columns]]))
        except OSError as error:
            raise CaliperError(
                f"Cannot write {self.path}: {error.strerror}; free some space and resume."
            ) from error
        self.rows += 1
        self._note([row])

    def _rewrite(self, rows: Sequence[Mapping[str, str]]) -> None:
        self._seal = hashlib.sha256()
        self._note(rows)
        cells = [[row.get(name, "") for name in self._columns] for row in rows]
        with replacing(self.path) as partial:
            partial.write_text(_lines([self._columns, *cells]), encoding="utf-8", newline="")
        self.rows = len(cells)

    def _note(self, rows: Sequence[Mapping[str, str]]) -> None:
        """Goes on with the checksum of all rows, as `rows_digest` makes it."""
        for row in rows:
            self._seal.update(row_bytes(row))


class SilentLogger(Logger):
    """Of a rank that leaves the numbers to the first."""

    def __init__(self) -> None:
        self.rows = 0

    def log(self, phase: str, env_steps: int, updates: int, metrics: Mapping[str, float | Tensor]) -> None:
        """Nothing, as the others."""

    def sync(self) -> None:
        """See `log`."""

    def mark(self) -> dict[str, Any]:
        """See `log`."""
        return {}

    def truncate(self, rows: int, sha256: str | None = None) -> int | None:
        """See `log`."""
        return None

    def close(self) -> None:
        """See `log`."""


def to_floats(metrics: Mapping[str, float | Tensor]) -> dict[str, float]:
    """Plain numbers, with one device synchronisation for all tensors together."""
    tensors = {name: value.detach() for name, value in metrics.items() if isinstance(value, Tensor)}
    values: list[float] = []
    if tensors:
        device = next(iter(tensors.values())).device
        values = torch.stack([t.to(device, torch.float64).reshape(()) for t in tensors.values()]).tolist()
    read = dict(zip(tensors, values, strict=True))
    return {name: read[name] if name in read else float(value) for name, value in metrics.items()}


def _lines(rows: Sequence[Sequence[str]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def _start_wandb(folder: Path, settings: Mapping[str, Any] | None, config: Mapping[str, Any] | None) -> Any:
    """A wandb run whose files stay inside the run folder, or None."""
    arguments = {
        "project": "caliper",
        "name": folder.name,
        "mode": "offline",
        **(settings or {"mode": "disabled"}),
    }
    if "disabled" in (arguments["mode"], os.environ.get("WANDB_MODE")):
        return None
    # Read by wandb's helper process: no reports to its makers, and no logs in the home folder.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("WANDB_CACHE_DIR", str(folder.resolve() / "wandb" / "cache"))
    try:
        import wandb

        quiet = wandb.Settings(silent=True, console="off", disable_git=True, save_code=False)
        run = wandb.init(dir=str(folder), config=dict(config or {}), settings=quiet, **arguments)
        for axis in ("env_steps", "updates"):
            run.define_metric(axis)
        run.define_metric("*", step_metric="updates")
    except Exception as error:
        raise CaliperError(
            f"wandb does not start ({error}); go on without it: log.wandb=disabled."
        ) from error
    return run
