"""Ctrl-C as a request: a run stops where it can go on exactly, not where it happens to be.

So do the signals that a cluster sends before it ends a job (SIGTERM; SIGUSR1 where a script of Slurm asks for
it) and a terminal that is closed (SIGHUP).
"""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from types import FrameType, TracebackType

from caliper.errors import CaliperError
from caliper.utils.early import SIGNALS, stop_if_told
from caliper.utils.ranks import ALONE, Ranks, resume_command


class InterruptedRunError(CaliperError):
    """The user stopped a run, and everything is saved; the message says how to go on."""


class Interrupt:
    """Turns signals into a request that `check` answers; a Ctrl-C after the first of them stops at once.

    The others only ever ask, however often: a terminal that is closed sends SIGHUP itself, and so does its
    shell; a job's keeper and its parent's death may each send SIGTERM. Who does not want to wait has SIGKILL.
    A context manager: outside of it the signals mean what they meant before. In a thread other than the main
    one, which receives no signals, it does nothing.

    Args:
        folder: the run folder, named in the message.
        ranks: of the run, for the message; the first one says that it stops.

    Attributes:
        requested: whether the user has asked to stop, on this rank.
    """

    def __init__(self, folder: Path, ranks: Ranks = ALONE) -> None:
        self.folder = folder
        self.ranks = ranks
        self.requested = False

    def __enter__(self) -> Interrupt:
        stop_if_told()
        caught = [] if threading.current_thread() is not threading.main_thread() else SIGNALS
        # What the parent has told it to ignore stays so: a closed terminal under nohup, a cluster's signals
        # where a launcher answers them. A shell's background jobs ignore SIGINT without meaning it.
        caught = [s for s in caught if s == signal.SIGINT or signal.getsignal(s) != signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._note) for number in caught}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            return
        self.requested = True
        if signal.SIGINT in self._before:
            before = self._before[signal.SIGINT]
            ignored = before == signal.SIG_IGN  # as in a shell's background jobs
            signal.signal(signal.SIGINT, signal.default_int_handler if ignored else before)
        if self.ranks.first:
            again = "Ctrl-C again" if number == signal.SIGINT else "Ctrl-C"
            print(f"\ncaliper: stopping; {again} stops at once, without saving", file=sys.stderr)

    def check(self) -> None:
        """Called wherever the run could be saved.

        Raises:
            InterruptedRunError: the user has asked to stop.
        """
        if self.requested:
            raise InterruptedRunError(
                f"stopped and saved; go on with: {resume_command(self.folder, self.ranks.place)}"
            )
