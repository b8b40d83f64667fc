"""The frames of recorded episodes on the disk: rendered by the first run that needs them, read by all."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from caliper.data.formats.checksum import digest
from caliper.data.ring import Layout, row_bytes
from caliper.data.stored_frames import StoredFrames, numpy_dtype
from caliper.errors import CaliperError
from caliper.types import Obs
from caliper.utils.files import cannot_write, partial_name, sync
from caliper.utils.memory import in_words

WHAT = "frames.json"  # says, for people, what the arrays beside it are of


def stored_folder(root: Path, facts: Mapping[str, Any]) -> Path:
    """Where frames are that come out as they do because of `facts`: data, cameras, sizes, appearances."""
    return root / digest(facts)[:32]


def stored(
    folder: Path, facts: Mapping[str, Any], layout: Layout, count: int, frames: Iterator[Obs]
) -> StoredFrames:
    """The frames of a folder; makes them if they are not there, or waits while another process does.

    Written under another name and renamed when all is on the disk: what has the folder's name is whole.

    Args:
        folder: see `stored_folder`.
        facts: the same.
        layout: of a frame.
        count: frames.
        frames: renders them, some at a time; not begun if they are there.

    Raises:
        CaliperError: the disk has no room for them, which is found out before any is rendered, or fails.
    """
    if not folder.is_dir():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with _turn(folder):
                if not folder.is_dir():  # else another has made them meanwhile
                    _require_room(folder, count * row_bytes(layout))
                    _write(folder, facts, layout, frames)
        except OSError as error:
            raise cannot_write(folder, error.strerror or error) from error
    print(f"frames: {in_words(count * row_bytes(layout))}, read from {folder}", flush=True)
    return StoredFrames(folder, layout, count)


def _write(folder: Path, facts: Mapping[str, Any], layout: Layout, frames: Iterator[Obs]) -> None:
    partial = partial_name(folder)
    shutil.rmtree(partial, ignore_errors=True)  # what a process left that was killed
    partial.mkdir()
    try:
        count = facts["frames"]
        with ExitStack() as stack:
            files = {name: stack.enter_context(open(partial / f"{name}.npy", "wb")) for name in layout}
            for name, (shape, dtype) in layout.items():
                header = {
                    "descr": np.lib.format.dtype_to_descr(numpy_dtype(dtype)),
                    "fortran_order": False,
                    "shape": (count, *shape),
                }
                np.lib.format.write_array_header_1_0(files[name], header)
            # Not through a map: where the disk is full, writing into one ends the process.
            for obs in frames:
                for name, rows in obs.tensors.items():
                    files[name].write(rows.cpu().contiguous().numpy().data)
        (partial / WHAT).write_text(json.dumps(dict(facts), indent=1) + "\n", encoding="utf-8")
        for path in (*partial.iterdir(), partial):
            sync(path)
        os.rename(partial, folder)
        sync(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _require_room(folder: Path, need: int) -> None:
    if (free := shutil.disk_usage(folder.parent).free) < need:
        raise CaliperError(
            f"data.storage=disk needs {in_words(need)} for the frames, and {folder.parent} has "
            f"{in_words(free)} left; free some space, or choose a folder on another disk with data.frames=..."
        )


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Waits until no other process of this machine writes the folder; one that dies lets go."""
    with open(folder.with_name(f".{folder.name}.lock"), "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"frames: another process is writing {folder}; waiting for it", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
