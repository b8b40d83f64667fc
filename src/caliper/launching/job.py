"""A job: one run folder that a launcher sees through, wherever it sends it, in one attempt or in several."""

from __future__ import annotations

import ctypes
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from caliper.analysis.run_data import read_run
from caliper.utils.files import LockedError, locked

POLL_SECONDS = 0.5
SIGNALS_OF_A_CLUSTER = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True, slots=True)
class Job:
    """One run of a sweep.

    Attributes:
        variant: its swept words without the seed, such as "agent=cql"; runs that share it are averaged.
        folder: the run folder.
        words: its whole command line, after `caliper train`.
    """

    variant: str
    folder: Path
    words: tuple[str, ...]

    @property
    def log(self) -> Path:
        """Where it prints to."""
        return self.folder.with_name(self.folder.name + ".log")

    def start(self, leashed: bool = False) -> subprocess.Popen[bytes]:
        """Begins the run, or goes on with it from its last checkpoint, in a process of its own.

        Args:
            leashed: for an `Attempt`, which alone tells the run to stop, with SIGINT; it gets SIGHUP when the
                attempt's process dies.
        """
        resumable = (self.folder / "checkpoints" / "latest").exists()
        words = ["resume", str(self.folder)] if resumable else ["train", *self.words]
        command = [sys.executable, "-m", "caliper", *words]
        if self.log.is_symlink() or self.log.is_fifo():  # in a stranger's folder: to any file, or to nobody
            self.log.unlink()
        with open(self.log, "ab") as log:
            log.write(f"$ {shlex.join(command)}\n".encode())
            log.flush()
            # In a session of its own, so that a terminal's Ctrl-C reaches it once, from its parent: two stop
            # at once.
            return subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_leash if leashed else None,
            )


class Launcher(Protocol):
    """Sends jobs somewhere. How a job ended is told by its folder, see `finished`."""

    @property
    def cpus(self) -> int | None:
        """Of each run; None: the runs share the cores of this machine."""

    @property
    def pace(self) -> float:
        """Seconds between two looks at what runs."""

    def start(self, job: Job) -> None:
        """Takes on a job whose folder nobody is at work in."""

    def running(self) -> dict[Job, str]:
        """The jobs that were started and have not ended; each with where it is, "" if that is not known."""

    def stop(self) -> None:
        """Asks all of them to save and end, and waits until they have."""


class Attempt:
    """Sees a job through on the machine that a cluster has chosen; called there, and gives the exit status.

    The run is a process of its own, which ignores what the cluster sends: whether that reaches the processes
    of a job one by one or all at once depends on the cluster, and a second signal stops a run without saving.
    """

    def __init__(self, job: Job, place: str) -> None:
        self.job, self.place = job, place
        self._run: subprocess.Popen[bytes] | None = None
        self._asked = False

    def __call__(self) -> int:
        """Waits until an earlier attempt, whose process may just have died, has saved; then goes on."""
        os.chdir(self.place)
        while busy(self.job.folder) and not self._asked:
            time.sleep(POLL_SECONDS)
        if self._asked or finished(self.job.folder):
            return 0
        self._run = self.job.start(leashed=True)
        while (status := self._run.poll()) is None:
            time.sleep(POLL_SECONDS)
        return status

    def ask_to_stop(self) -> None:
        """The run saves and ends, and with it the call, if it has not ended. Asks once, and does not wait."""
        if not self._asked and self._run is not None:
            self._run.send_signal(signal.SIGINT)
        self._asked = True

    def wait_until_saved(self) -> None:
        """May be called from a signal's handler, in the midst of the call."""
        while busy(self.job.folder):
            time.sleep(POLL_SECONDS)


def finished(folder: Path) -> bool:
    """Whether a run has come to its end: evaluated after its last environment step, and reported."""
    written = all((folder / name).exists() for name in ("config.yaml", "report.html"))
    return written and read_run(folder).complete


def busy(folder: Path) -> bool:
    """Whether a process is at work in a run folder.

    Raises:
        CaliperError: it cannot be told.
    """
    if not folder.exists():
        return False
    try:
        with locked(folder):
            return False
    except LockedError:
        return True


_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None  # loaded before any fork


def _leash() -> None:
    """Between fork and exec, so that the run has it from its first moment.

    Linux tells of a parent's death once for each of its threads: it must be a signal that only asks, however
    often it comes; a second Ctrl-C stops a run without saving.
    """
    for number in SIGNALS_OF_A_CLUSTER:
        signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGINT, signal.SIGHUP):  # Ray's processes block the first
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT, signal.SIGHUP])
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGHUP)
