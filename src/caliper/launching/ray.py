"""Runs as tasks of Ray, on a cluster that is there, or on one made here that lasts as long as the sweep."""

from __future__ import annotations

import logging
import os
import signal
import time
from dataclasses import dataclass, field
from typing import Any

from caliper.errors import CaliperError
from caliper.launching.job import Attempt, Job, busy

ALWAYS = -1  # in Ray's words: retried whenever a worker or its node dies; a run that fails by itself is not


def see_through(job: Job, place: str) -> int:
    """What a task calls."""
    attempt = Attempt(job, place)
    try:
        return attempt()
    except KeyboardInterrupt:  # Ray's way to cancel a task
        attempt.ask_to_stop()
        attempt.wait_until_saved()
        raise


@dataclass
class Ray:
    """See `Launcher`.

    Attributes:
        address: of a cluster, as `ray.init` takes it; None for that of RAY_ADDRESS, else one made here.
        cpus: per run, which become its threads.
        gpus: per run; a fraction shares one.
    """

    address: str | None = None
    cpus: int = 1
    gpus: float = 0.0
    pace: float = field(default=1.0, init=False)
    _tasks: dict[Any, Job] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to Ray's makers
        try:
            import ray
        except ImportError as error:
            raise CaliperError(
                f"launcher=ray needs Ray ({error}); install: pip install 'caliper-rl[ray]'"
            ) from error
        self._ray: Any = ray

    def start(self, job: Job) -> None:
        """See `Launcher`."""
        if not self._ray.is_initialized():
            self._connect()
        resources = {"num_cpus": self.cpus, "num_gpus": self.gpus, "max_retries": ALWAYS}
        task = self._ray.remote(see_through).options(name=job.folder.name, **resources)
        self._tasks[task.remote(job, os.getcwd())] = job

    def _connect(self) -> None:
        before = signal.getsignal(signal.SIGTERM)
        try:
            self._ray.init(self.address, log_to_driver=False, logging_level=logging.WARNING)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise CaliperError(
                f"Ray does not start: {str(error).splitlines()[0]}; name a cluster that runs with ray.address"
            ) from error
        signal.signal(signal.SIGTERM, before)  # which Ray has replaced

    def running(self) -> dict[Job, str]:
        """See `Launcher`; Ray does not tell where without its dashboard, the run folder does."""
        if self._tasks:
            tasks = list(self._tasks)
            for task in self._ray.wait(tasks, num_returns=len(tasks), timeout=0)[0]:
                self._end(task, self._tasks.pop(task))
        return dict.fromkeys(self._tasks.values(), "")

    def _end(self, task: Any, job: Job) -> None:
        try:
            self._ray.get(task)
        except self._ray.exceptions.RayError as error:  # no run came of it that could have said what is wrong
            with open(job.log, "a", encoding="utf-8") as log:
                log.write(f"{error}\n")

    def stop(self) -> None:
        """See `Launcher`."""
        tasks = list(self._tasks)
        for task in tasks:
            self._ray.cancel(task)
        if tasks:
            self._ray.wait(tasks, num_returns=len(tasks))
        for job in self._tasks.values():
            while busy(job.folder):
                time.sleep(self.pace)
