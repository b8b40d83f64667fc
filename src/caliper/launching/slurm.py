"""Runs as jobs of Slurm, submitted through submitit, which also puts a job back into the queue at its limit.

A job's number stands in SWEEP/.slurm/RUN.job, so that a sweep that was killed finds its jobs again.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from caliper.errors import CaliperError
from caliper.launching.job import Attempt, Job
from caliper.utils.files import replacing
from caliper.utils.foreign import ForeignFileError, read_text

MOST_SECONDS_TO_SAVE = 300
MANY = 1_000_000  # requeues at the time limit; submitit's own limit is three
MOST_DIGITS = 100  # of a job's number
PATIENCE = 60.0  # seconds for an answer of Slurm's


class SlurmAttempt(Attempt):
    """What a job of Slurm calls. submitit calls `checkpoint` near the time limit, and requeues the job."""

    def __call__(self) -> int:
        """See `Attempt`; here SIGTERM asks to stop."""

        def ask(number: int, frame: FrameType | None) -> None:
            self.ask_to_stop()

        signal.signal(signal.SIGTERM, ask)
        return super().__call__()

    def checkpoint(self) -> Any:
        """Has the run saved, and tells what to call when the job has its next turn."""
        from submitit.helpers import DelayedSubmission

        self.ask_to_stop()
        self.wait_until_saved()
        return DelayedSubmission(SlurmAttempt(self.job, self.place))


@dataclass
class Slurm:
    """See `Launcher`. A job is requeued at its time limit, so that this bounds one turn and not the run.

    Attributes:
        minutes: time limit of a job; it saves five minutes before, a quarter of the
            limit if that is less; Slurm may tell it so a minute earlier.
        partition: None for the cluster's default.
        account: to be charged; None for the user's default.
        cpus: per job, which become the run's threads.
        gpus: per job.
        memory: per job, such as 16G; None for the cluster's default.
    """

    minutes: int = 240
    partition: str | None = None
    account: str | None = None
    cpus: int = 2
    gpus: int = 0
    memory: str | None = None
    pace: float = field(default=5.0, init=False)
    _numbers: dict[Job, str] = field(default_factory=dict, init=False)
    _queue: dict[str, tuple[str, str]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        try:
            import submitit  # noqa: F401
        except ImportError as error:
            raise CaliperError(
                f"launcher=slurm needs submitit ({error}); install: pip install 'caliper-rl[slurm]'"
            ) from error
        for tool in ("sbatch", "srun", "squeue", "scancel"):
            if shutil.which(tool) is None:
                raise CaliperError(
                    f"launcher=slurm found no {tool}; give the command on a machine of the Slurm cluster"
                )
        if not self._look():
            raise CaliperError("Slurm does not answer (squeue --me fails); ask whoever runs the cluster")

    def start(self, job: Job) -> None:
        """See `Launcher`; takes over the job that an earlier sweep has submitted, if there is one."""
        from submitit import SlurmExecutor

        folder = job.folder.resolve().parent / ".slurm"
        note = folder / f"{job.folder.name}.job"
        number = ""
        with suppress(ForeignFileError):  # absent, or torn: then a new one
            number = read_text(note, MOST_DIGITS).strip()
        if number not in self._queue:
            executor = SlurmExecutor(folder, max_num_timeout=MANY)
            executor.update_parameters(**self._parameters(job.folder.name))
            try:
                number = str(executor.submit(SlurmAttempt(job, os.getcwd())).job_id)
            except Exception as error:  # submitit's, with what sbatch has said
                raise CaliperError(f"Slurm takes no job: {' '.join(str(error).split())}") from error
            with replacing(note) as partial:
                partial.write_text(number, encoding="ascii")
            self._queue[number] = ("PENDING", "")
        self._numbers[job] = number

    def _parameters(self, name: str) -> dict[str, Any]:
        wanted = {
            "partition": self.partition,
            "account": self.account,
            "mem": self.memory,
            "gpus_per_node": self.gpus or None,
        }
        return {
            "job_name": name,
            "time": self.minutes,
            "cpus_per_task": self.cpus,
            "srun_args": [f"--cpus-per-task={self.cpus}"],  # srun does not take it from sbatch any more
            "signal_delay_s": min(MOST_SECONDS_TO_SAVE, 15 * self.minutes),
            "stderr_to_stdout": True,
            "additional_parameters": {"requeue": True},  # also where a node fails
        } | {key: value for key, value in wanted.items() if value is not None}

    def running(self) -> dict[Job, str]:
        """See `Launcher`; of jobs that wait, the queue's reason."""
        self._look()
        self._numbers = {job: number for job, number in self._numbers.items() if number in self._queue}
        return {job: self._where(number) for job, number in self._numbers.items()}

    def _where(self, number: str) -> str:
        state, place = self._queue[number]
        return f"{place} (job {number})" if state == "RUNNING" else f"{state.lower()} (job {number}) {place}"

    def stop(self) -> None:
        """See `Launcher`. A job that runs may take its time to save: it gets a signal, and no limit."""
        while here := self.running():
            waiting = [self._numbers[job] for job in here if self._queue[self._numbers[job]][0] == "PENDING"]
            others = [self._numbers[job] for job in here if self._numbers[job] not in waiting]
            for words, numbers in ((["--state=PENDING"], waiting), (["--signal=TERM"], others)):
                if numbers:
                    subprocess.run(["scancel", *words, *numbers], capture_output=True, timeout=PATIENCE)
            time.sleep(self.pace)

    def _look(self) -> bool:
        """Asks Slurm for the user's jobs; where it does not answer, what it said last holds."""
        command = ["squeue", "--me", "--noheader", "--format=%i|%T|%R"]
        try:
            asked = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=True)
        except (subprocess.SubprocessError, OSError):
            return False
        rows = (
            line.split("|", 2)
            for line in asked.stdout.decode(errors="replace").splitlines()
            if line.count("|") >= 2
        )
        self._queue = {number: (state, place.strip("()")) for number, state, place in rows}
        return True
