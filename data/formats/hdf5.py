"""HDF5 files of strangers, opened by another process: see `caliper.data.formats.hdf5_child`, which says why.

What comes back is plain: names, attributes that are text or numbers, and arrays. Nothing is unpickled.
"""

from __future__ import annotations

import json
import math
import os
import re
import select
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from caliper.errors import no_file

START_SECONDS = 120.0  # for Python and h5py to load, from a cold disk
# To wait for answers about one file, and longer the larger it is. What keeps the library busy is ended long
# before, by the child's limit of CPU time; a sound file needs the rest on a machine busy with other things.
SECONDS, BYTES_PER_SECOND = 120.0, 1 << 20
LONGEST_LINE = 256 << 20
DIED = "the HDF5 library crashed on it, or ran out of time or memory"
NONSENSE = "its reader answers nonsense"
_DTYPE = re.compile(r"[<|](f[248]|[iu][1248]|b1)")


class UnreadableError(Exception):
    """What keeps a file from being read, in words that follow its name."""


class Child:
    """A process for one file.

    Args:
        script: what it runs, a file beside this one that imports nothing of ours.
        path: the file.
    """

    def __init__(self, script: str, path: Path) -> None:
        # Without `site`, and with our own path: a quick start wherever the packages are.
        env = os.environ | {
            "PYTHONPATH": os.pathsep.join(part for part in sys.path if part),
            "OPENBLAS_NUM_THREADS": "1",
            "HDF5_PLUGIN_PRELOAD": "::",  # no filters from shared libraries
        }
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-P", str(Path(__file__).with_name(script)), str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=env,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self.asked: Any = self._process.stdin
        self.told: Any = self._process.stdout

    def end(self) -> None:
        """Ends the process, whatever it is doing, and closes the pipes."""
        self._process.kill()
        self._process.wait()
        with suppress(OSError):  # what it was not told any more
            self.asked.close()
        self.told.close()


class ForeignFile:
    """An HDF5 file whose bytes are not trusted; a context manager.

    Attributes:
        ended: nothing more comes from it: its process has crashed or takes too long.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ended = False
        self._ahead = b""

    def __enter__(self) -> Self:
        """Opens the file.

        Raises:
            UnreadableError: it is no regular file that may be read, or not HDF5.
        """
        try:
            if fault := no_file(self.path):
                raise UnreadableError(fault)
            self.path.open("rb").close()
            size = self.path.stat().st_size
        except OSError as error:
            raise UnreadableError(f"cannot be read: {error.strerror}") from error
        self._most = (1 << 30) + 32 * size  # as the child's own limit
        self._process = Child("hdf5_child.py", self.path)
        try:
            self._left = START_SECONDS
            self._answer()
            self._left = SECONDS + size / BYTES_PER_SECOND
            self._answer()
        except UnreadableError as error:
            self._process.end()
            reason = str(error)
            if "unable to lock file" in reason:
                raise UnreadableError("is open for writing in another program; wait for it") from error
            raise UnreadableError(f"is damaged or not an HDF5 file ({reason})") from error
        except BaseException:
            self._process.end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.end()

    def names(self, at: str = "") -> dict[str, str]:
        """What is in a group: "group", "array", or what else.

        Raises:
            UnreadableError: there is no such group, or it is damaged.
        """
        found = self._ask("names", at).get("names")
        if not isinstance(found, dict) or not all(isinstance(kind, str) for kind in found.values()):
            raise UnreadableError(NONSENSE)
        return found

    def attributes(self, at: str) -> dict[str, tuple[str, Any]]:
        """The attributes of a group or array, each with its kind and value.

        Kinds are text, int, float, bool, "other text" (bytes, or an array of one text) and other.

        Raises:
            UnreadableError: there is no such place, or it is damaged.
        """
        found = self._ask("attributes", at).get("attributes")
        kinds = {"text": str, "other text": str, "int": int, "float": float, "bool": bool, "other": str}
        if not isinstance(found, dict) or not all(
            isinstance(v, list) and len(v) == 2 and type(v[1]) is kinds.get(v[0]) for v in found.values()
        ):
            raise UnreadableError(NONSENSE)
        return {name: (kind, value) for name, (kind, value) in found.items()}

    def array(self, at: str) -> NDArray[Any]:
        """An array of numbers as it is stored, little-endian.

        Raises:
            UnreadableError: there is no such array, or it is damaged, elsewhere, not of numbers or too large.
        """
        said = self._ask("array", at)
        dtype, shape = said.get("dtype"), said.get("shape")
        if (
            not (isinstance(dtype, str) and _DTYPE.fullmatch(dtype))
            or not (isinstance(shape, list) and len(shape) <= 8)
            or not all(type(n) is int and n >= 0 for n in shape)
            or (nbytes := math.prod(shape) * np.dtype(dtype).itemsize) > self._most
        ):
            raise UnreadableError(NONSENSE)
        self._most -= nbytes
        array = np.empty(shape, dtype)
        self._fill(array.reshape(-1).view(np.uint8).data)
        return array

    def shape(self, at: str) -> tuple[str, tuple[int, ...]]:
        """What an array holds, as numpy's word such as "|u1", and its shape; nothing of it is read.

        Raises:
            UnreadableError: there is no such array, or it is damaged.
        """
        said = self._ask("shape", at)
        dtype, shape = said.get("dtype"), said.get("shape")
        if (
            not isinstance(dtype, str)
            or not isinstance(shape, list)
            or any(type(n) is not int for n in shape)
        ):
            raise UnreadableError(NONSENSE)
        return dtype, tuple(shape)

    def texts(self, at: str) -> list[str]:
        """The texts of an array, such as names.

        Raises:
            UnreadableError: there is no such array, or it is damaged, elsewhere, not of text or too large.
        """
        found = self._ask("texts", at).get("texts")
        if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
            raise UnreadableError(NONSENSE)
        return found

    def _ask(self, do: str, at: str) -> dict[str, Any]:
        try:
            self._process.asked.write(json.dumps({"do": do, "at": at}).encode("ascii") + b"\n")
            self._process.asked.flush()
        except OSError as error:
            raise UnreadableError(f"can't be used: {DIED}") from error
        try:
            return self._answer()
        except UnreadableError as error:
            raise UnreadableError(f"can't be used: {error}") from error

    def _answer(self) -> dict[str, Any]:
        """One line of JSON."""
        while b"\n" not in self._ahead:
            if len(self._ahead) > LONGEST_LINE or not (more := self._some(1 << 16)):
                raise UnreadableError(DIED)
            self._ahead += more
        line, self._ahead = self._ahead.split(b"\n", 1)
        try:
            answer = json.loads(line)
        except ValueError as error:
            raise UnreadableError(NONSENSE) from error
        if "error" in answer:
            raise UnreadableError(str(answer["error"]))
        return dict(answer)

    def _fill(self, buffer: memoryview) -> None:
        ahead = self._ahead[: len(buffer)]
        buffer[: len(ahead)] = ahead
        self._ahead = self._ahead[len(ahead) :]
        done = len(ahead)
        while done < len(buffer):
            more = self._some(min(1 << 20, len(buffer) - done))
            if not more:
                raise UnreadableError(DIED)
            buffer[done : done + len(more)] = more
            done += len(more)

    def _some(self, most: int) -> bytes:
        """The next bytes, none at the end; waits no longer than there is time left for this file."""
        descriptor = self._process.told.fileno()
        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        before = time.monotonic_ns()
        ready = waiting.poll(1000 * max(self._left, 0.0))
        self._left -= (time.monotonic_ns() - before) / 1e9
        if not ready:
            self.ended = True
            raise UnreadableError("the HDF5 library does not come to an end with it")
        found = os.read(descriptor, most)
        self.ended = not found
        return found
