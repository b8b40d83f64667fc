"""What happened to a run besides its training: other values at a resume, warnings, stops."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from caliper.utils.files import replacing
from caliper.utils.foreign import ForeignFileError, read_text

FILE = "history.jsonl"
KINDS = ("changed", "warned", "stopped")
MOST = 4 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the history: one of `KINDS`, when (ISO 8601, UTC), and what was said."""

    kind: str
    at: str
    text: str


def remember(folder: Path, kind: str, text: str, **more: Sequence[Mapping[str, Any]]) -> None:
    """Adds an event to a run's history.

    Raises:
        CaliperError: the disk is full or not writable.
    """
    path = folder / FILE
    record = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "event": kind, "text": text, **more}
    earlier = path.read_bytes() if path.exists() else b""
    with replacing(path) as partial:
        partial.write_bytes(earlier + json.dumps(record).encode("ascii") + b"\n")


def read_history(path: Path) -> tuple[Event, ...]:
    """The events in their order.

    Raises:
        ForeignFileError: it holds something else.
    """
    events = []
    for number, line in enumerate(read_text(path, MOST).splitlines(), 1):
        try:
            record = json.loads(line)
            event = Event(record["event"], record["at"], record["text"])
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise ForeignFileError(f"is damaged in line {number}") from error
        if event.kind not in KINDS or not (isinstance(event.at, str) and isinstance(event.text, str)):
            raise ForeignFileError(f"holds no event in line {number}")
        events.append(event)
    return tuple(events)
