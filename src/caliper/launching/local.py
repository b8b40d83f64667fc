"""Runs as processes of this machine, which outlive a sweep that is killed."""

from __future__ import annotations

import signal
import socket
import subprocess
from dataclasses import dataclass, field

from caliper.launching.job import POLL_SECONDS, Job


@dataclass
class Local:
    """See `Launcher`."""

    cpus: int | None = field(default=None, init=False)
    pace: float = field(default=POLL_SECONDS, init=False)
    _processes: dict[Job, subprocess.Popen[bytes]] = field(default_factory=dict, init=False)

    def start(self, job: Job) -> None:
        """See `Launcher`."""
        self._processes[job] = job.start()

    def running(self) -> dict[Job, str]:
        """See `Launcher`."""
        self._processes = {job: run for job, run in self._processes.items() if run.poll() is None}
        return dict.fromkeys(self._processes, socket.gethostname())

    def stop(self) -> None:
        """See `Launcher`."""
        for run in self._processes.values():
            run.send_signal(signal.SIGINT)
        for run in self._processes.values():
            run.wait()
