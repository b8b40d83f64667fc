"""Ctrl-C as a request: a run stops where it can go on exactly, not where it happens to be."""

from __future__ import annotations

import shlex
import signal
import sys
from pathlib import Path
from types import FrameType, TracebackType

from caliper.errors import CaliperError


class InterruptedRunError(CaliperError):
    """The user stopped a run, and everything is saved; the message says how to go on."""


class Stop:
    """Turns the first Ctrl-C into a request that `check` answers; the second one stops at once.

    A context manager: outside of it the signal means what it meant before.

    Args:
        folder: the run folder, named in the message.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requested = False

    def __enter__(self) -> Stop:
        self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, self._before)
        self.requested = True
        print("\ncaliper: stopping; Ctrl-C again stops at once, without saving", file=sys.stderr)

    def check(self) -> None:
        """Called wherever the run could be saved.

        Raises:
            InterruptedRunError: the user has asked to stop.
        """
        if self.requested:
            raise InterruptedRunError(
                f"stopped and saved; go on with: caliper resume {shlex.quote(str(self.folder))}"
            )
