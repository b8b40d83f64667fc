"""The first tenth of a second of a command, its imports: a signal then ends it in one sentence."""

import os
import signal
from types import FrameType

# Ctrl-C; a cluster, by itself or where a script of Slurm asks for it; a closed terminal.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


def end_at_signals() -> None:
    """From now on the signals end the process at once; one that is ignored (as under nohup) stays so."""
    for number in SIGNALS:
        if unclaimed(number):
            signal.signal(number, _end)


def unclaimed(number: signal.Signals) -> bool:
    """Whether a signal does what it does in every Python program, or what it does in a command's imports."""
    return signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler, _end)


def _end(number: int, frame: FrameType | None) -> None:
    """No exception: raised within an import, it would be a traceback, or be taken for another error."""
    os.write(2, b"caliper: stopped at once, before anything had begun\n")
    os._exit(130)
