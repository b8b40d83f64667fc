"""Progress bars: lively on a terminal, and a line now and then in a log file."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

from caliper.utils.ranks import place

LOG_SECONDS = 10.0  # between a bar's lines, and before its first, where no terminal shows it


def watched() -> bool:
    """Whether somebody sees the bars as they move."""
    return sys.stderr.isatty() and place().rank == 0


def bar(total: int, label: str, unit: str, initial: int = 0, leave: bool = True) -> Any:
    """A progress bar on stderr, to be used as a context manager; of the first rank alone.

    Args:
        total: how many units make it full.
        label: what is going on.
        unit: name of one unit.
        initial: units done before.
        leave: whether it stays on the screen when it is full.
    """
    pace = {} if watched() else {"mininterval": LOG_SECONDS, "delay": LOG_SECONDS}
    hidden = place().rank > 0
    return tqdm(total=total, desc=label, unit=unit, initial=initial, leave=leave, disable=hidden, **pace)
