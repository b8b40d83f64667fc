"""A run at full speed for an hour: its memory, its open files and its threads over time."""

import csv
import signal
import threading
import time
from pathlib import Path

import numpy as np

from campaigns.processes import METHODS, RUN  # type: ignore[import-not-found]


class Sampler(threading.Thread):
    """Notes a process's memory, open files and threads every few seconds."""

    def __init__(self, pid, every):
        super().__init__(daemon=True)
        self.pid, self.every, self.rows = pid, every, []

    def run(self):
        start, place = time.monotonic(), Path(f"/proc/{self.pid}")
        while True:
            try:
                status = (place / "status").read_text()
                held = {
                    line.split(":")[0]: line.split()[1]
                    for line in status.splitlines()
                    if len(line.split()) > 1
                }
                files = len(list((place / "fd").iterdir()))
                self.rows.append(
                    (time.monotonic() - start, int(held["VmRSS"]) / 1024, files, int(held["Threads"]))
                )
            except (OSError, KeyError):
                return
            time.sleep(self.every)


def soak(bench, minutes, every=2.0):
    """A run on pixels at full speed for so many minutes, started as a user does; its memory over time."""
    words = [
        *RUN, *METHODS["calql, pixels"], f"data.path={bench.dataset}", "task.horizon=40", "log.every=100",
        "online.env_steps=1000000000", "online.num_envs=8", "online.capacity=5000", "online.eval_every=2000",
        "evaluation.episodes=4", "evaluation.num_envs=4", "log.checkpoint_minutes=1",
    ]  # fmt: skip
    run = bench.new("soak")
    process = bench.start("train", *words, f"run_dir={run}")
    sampler = Sampler(process.pid, every)
    sampler.start()
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end and process.code() is None:
        time.sleep(1)
    early = process.code() is not None
    process.send(signal.SIGTERM)
    code = process.wait()
    rows = np.array(sampler.rows)
    later = rows[rows[:, 0] > rows[-1, 0] / 3]  # the buffer is full by then
    slope = float(np.polyfit(later[:, 0] / 60, later[:, 1], 1)[0])
    with open(run / "metrics.csv", newline="", encoding="utf-8") as file:
        *_, last = csv.DictReader(file)
    return {
        "minutes": round(float(rows[-1, 0]) / 60, 1),
        "bad": int(early or code != 130),
        "updates": int(last["updates"]),
        "env_steps": int(last["env_steps"]),
        "checkpoints": int(max(p.name for p in (run / "checkpoints").glob("0*"))),
        "mib_first_third": round(float(np.median(rows[rows[:, 0] < rows[-1, 0] / 3, 1])), 1),
        "mib_last_third": round(float(np.median(rows[rows[:, 0] > rows[-1, 0] * 2 / 3, 1])), 1),
        "mib_per_minute": round(slope, 4),
        "open_files": [int(later[:, 2].min()), int(later[:, 2].max())],
        "threads": [int(later[:, 3].min()), int(later[:, 3].max())],
        "samples": [
            [round(float(t)), round(float(m), 1)] for t, m, _, _ in rows[:: max(1, len(rows) // 120)]
        ],
    }
