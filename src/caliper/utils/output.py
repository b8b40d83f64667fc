"""Output that may go away, as it does in `caliper train | head`: a run goes on without it."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any, TextIO


class Forgiving:
    """Passes text on to a stream until that can take no more, and says so once, on standard error.

    Args:
        stream: where the text goes; None, as Python has it where the shell has closed it, is nowhere.
        name: of the stream, for that message.
    """

    def __init__(self, stream: TextIO | None, name: str = "standard output") -> None:
        self._stream = open(os.devnull, "w") if stream is None else stream  # noqa: SIM115  # for ever
        self._name = name
        self._lost = False

    def write(self, text: str) -> int:
        """As of any stream."""
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        try:  # a terminal that is not of UTF-8 lacks letters that a path may have
            self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
            self._stream.flush()
        except OSError as error:
            self._lose(error)
        return len(text)

    def flush(self) -> None:
        """As of any stream."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _lose(self, error: OSError) -> None:
        told, self._lost = self._lost, True
        if not told and not isinstance(error, BrokenPipeError):
            print(f"caliper: {self._name} takes no more ({error.strerror})", file=sys.stderr)
        # What is still in the stream's own memory would fail once more when the program ends.
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
