"""Signals until a run takes them for itself: in a command's imports, and before its work begins."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# Ctrl-C; a cluster, by itself or where a script of Slurm asks for it; a closed terminal.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)

_come: list[int] = []  # signals since the command began


def end_at_signals() -> None:
    """From now on the signals end the process at once; one that is ignored (as under nohup) stays so."""
    for number in SIGNALS:
        if _unclaimed(number):
            signal.signal(number, _end)


@contextmanager
def as_ctrl_c() -> Iterator[list[int]]:
    """Within, the other signals do what Ctrl-C does: they raise KeyboardInterrupt.

    Yields:
        The signals that have come since, for whoever catches what a library has made of that exception.
    """
    _come.clear()
    before = {number: signal.getsignal(number) for number in SIGNALS if _unclaimed(number)}
    for number in before:
        signal.signal(number, _stop)
    try:
        yield _come
    finally:  # whoever called the command from Python goes on, with signals as they were
        _come.clear()
        for number, handler in before.items():
            if handler is not _end:
                signal.signal(number, handler)


def stop_if_told() -> None:
    """Called where work begins: a signal came before, and the import of some library has swallowed it.

    Raises:
        KeyboardInterrupt: there was one.
    """
    if _come:
        raise KeyboardInterrupt


def _unclaimed(number: signal.Signals) -> bool:
    """Whether a signal does what it does in every Python program, or what it does in a command's imports."""
    return signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler, _end)


def _end(number: int, frame: FrameType | None) -> None:
    """No exception: raised within an import, it would be a traceback, or be taken for another error."""
    os.write(2, b"caliper: stopped at once, before anything had begun\n")
    os._exit(130)


def _stop(number: int, frame: FrameType | None) -> None:
    _come.append(number)
    raise KeyboardInterrupt
