"""The process that adds images to an HDF5 file of strangers: run by `caliper.data.formats.images`.

It reads a line of JSON about the file, then one for each episode with the bytes of its images after it, and
answers each with a line: {} or {"error": "..."}. See `caliper.data.formats.hdf5_child` for why.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from contextlib import suppress
from typing import Any, BinaryIO

import h5py
import numpy as np

MEMORY = 4 << 30  # bytes beyond what the process holds when it starts


def main() -> None:
    """Serves one file, whose name comes as the only argument, until the asker hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C: the asker decides
    with suppress(OSError, ValueError), open("/proc/self/statm") as statm:
        most = int(statm.read().split()[0]) * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    serve(sys.argv[1], sys.stdin.buffer, sys.stdout.buffer)


def serve(path: str, asked: BinaryIO, told: BinaryIO) -> None:
    """Answers until the end; the file is closed, and so complete, when the line {"end": true} is answered."""
    file = None
    for line in asked:
        try:
            request = json.loads(line)
            if "attributes" in request:
                file = h5py.File(path, "r+")
                file["data"].attrs.update(request["attributes"])
            elif "demo" in request:
                assert file is not None
                _episode(file, request, asked)
            elif file is not None:
                file.close()
        except Exception as error:  # h5py passes on whatever it is led to
            reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
            told.write(json.dumps({"error": (reason.splitlines() or [""])[0]}).encode("ascii") + b"\n")
            told.flush()
            os._exit(1)  # not by way of HDF5's own clearing up, which may fail again
        told.write(b"{}\n")
        told.flush()


def _episode(file: h5py.File, request: dict[str, Any], asked: BinaryIO) -> None:
    """Writes the parts of one episode, images (t, h, w, c) and numbers (t, k) of the t + 1 or t there are."""
    demo = file[f"data/{request['demo']}"]
    for name, dtype, shape in request["views"]:
        content = asked.read(int(np.prod(shape)) * np.dtype(dtype).itemsize)
        images = np.frombuffer(content, dtype).reshape(shape)
        if shape[0] == request["actions"]:  # no state after the last action
            images = np.concatenate([images, images[-1:]])
        if images.ndim > 2 or f"obs/{name}" not in demo:  # numbers of the same states are the same
            _add(demo, name, images)
    file.flush()


def _add(demo: h5py.Group, name: str, images: np.ndarray[Any, Any]) -> None:
    t, shape = len(images) - 1, images.shape[1:]
    chunks = (1 if len(shape) > 1 else t, *shape)  # an image is what is read at a time
    obs = demo.create_dataset(
        f"obs/{name}", data=images[:t], chunks=chunks, compression="gzip", compression_opts=1
    )
    last = demo.create_dataset(f"final_obs/{name}", data=images[t], chunks=shape, compression="gzip")
    following = h5py.VirtualLayout((t, *shape), images.dtype)
    following[: t - 1] = h5py.VirtualSource(".", obs.name, obs.shape)[1:]  # "." is this file, under any name
    following[t - 1] = h5py.VirtualSource(".", last.name, shape)
    demo.create_virtual_dataset(f"next_obs/{name}", following)


if __name__ == "__main__":
    main()
