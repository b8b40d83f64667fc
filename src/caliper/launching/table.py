"""What runs, in one table: alive on a terminal, and now and then in a log file. Read from the run folders."""

from __future__ import annotations

import csv
import os
import shutil
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from caliper.analysis.run_table import text_table
from caliper.config.schema import RunConfig
from caliper.errors import printable
from caliper.launching.job import Job
from caliper.utils.files import holder
from caliper.utils.foreign import read_json
from caliper.utils.progress import watched

TAIL = 1 << 16  # bytes of metrics.csv that are read: the speed is that of the rows in them
TERMINAL_SECONDS, LOG_SECONDS = 2.0, 60.0  # between two tables


class LiveTable:
    """Shows the jobs under way on standard error.

    Args:
        configs: of all jobs.
    """

    def __init__(self, configs: Mapping[Job, RunConfig]) -> None:
        self.configs = configs
        self._counts: tuple[int, ...] = ()
        self._drawn, self._lines = 0.0, 0

    def show(self, running: Mapping[Job, str], waiting: int, failed: int) -> None:
        """Draws it if it is time to, or if a job has ended since.

        Args:
            running: the jobs under way, each with where it is as its launcher says.
            waiting: jobs that have not been started.
            failed: jobs that have ended before their time.
        """
        counts = (len(self.configs) - len(running) - waiting - failed, len(running), waiting, failed)
        pace = TERMINAL_SECONDS if watched() else LOG_SECONDS
        if counts == self._counts and time.monotonic() < self._drawn + pace:
            return
        self._counts, self._drawn = counts, time.monotonic()
        rows = []
        for job, said in running.items():
            where = printable(said or holder(job.folder)[:100]) or "waiting"
            rows.append({"run": job.folder.name, **progress(job.folder, self.configs[job]), "where": where})
        names = ("finished", "running", "waiting", "failed")
        summary = ", ".join(f"{n} {name}" for n, name in zip(counts, names, strict=True) if n)
        lines = [*(text_table(rows).splitlines() if rows else []), summary]
        if watched():
            width, height = shutil.get_terminal_size()
            if len(lines) > height - 1:
                lines = [*lines[: height - 3], "...", summary]
            lines = [line[: width - 1] for line in lines]
        up = f"\x1b[{self._lines}F\x1b[J" if watched() and self._lines else ""
        print(up + "\n".join(lines), file=sys.stderr, flush=True)
        self._lines = len(lines)


def progress(folder: Path, config: RunConfig) -> dict[str, str]:
    """Phase, step, success and speed of a run, each "" where its folder does not tell yet.

    The speed is in steps of the phase per second, evaluations included.
    """
    told = dict.fromkeys(("phase", "step", "success", "speed"), "")
    with suppress(OSError, ValueError, KeyError, csv.Error):  # not there yet, or torn: the next look will do
        if rows := _last_rows(folder / "metrics.csv"):
            told |= _of_rows(rows, config)
    with suppress(OSError, ValueError, KeyError, TypeError):
        newest = max(folder.glob("evaluations/*/evaluation.json"), key=lambda path: path.stat().st_mtime)
        told["success"] = f"{read_json(newest)['success_once']:.2f}"
    return told


def _of_rows(rows: list[dict[str, str]], config: RunConfig) -> dict[str, str]:
    last, phase = rows[-1], _phase(rows[-1])
    column, total, unit = {
        "bc": ("bc_updates", config.offline.bc_updates, "updates"),
        "offline": ("updates", config.offline.updates, "updates"),
        "online": ("env_steps", config.online.env_steps, "steps"),
    }[phase]
    told = {"phase": phase, "step": f"{printable(last[column])}/{total} {unit}"}
    first = next(row for row in rows if _phase(row) == phase)
    seconds = float(last["wall_s"]) - float(first["wall_s"])
    if seconds > 0:
        told["speed"] = f"{(float(last[column]) - float(first[column])) / seconds:.1f}/s"
    return told


def _phase(row: Mapping[str, str]) -> str:
    return "bc" if row.get("bc_updates") else row["phase"]


def _last_rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():  # not there yet; or a pipe, which would be waited for
        return []
    with open(path, "rb") as file:
        names = file.readline()
        begin = max(file.tell(), os.fstat(file.fileno()).st_size - TAIL)
        whole_line = begin == file.tell()
        file.seek(begin)
        lines = file.read().decode("utf-8", errors="replace").split("\n")[:-1]  # the last may be half a line
    (columns,) = csv.reader([names.decode("utf-8").rstrip("\n")])
    return [
        dict(zip(columns, row, strict=True))
        for row in csv.reader(lines if whole_line else lines[1:])
        if len(row) == len(columns)
    ]
