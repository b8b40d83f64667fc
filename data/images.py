"""Pictures beside the states of a dataset file, named and shaped as robosuite and robomimic do.

    data/demo_<i>/obs/<camera>_image        (t, h, w, 3) u8, at which the actions were taken
    data/demo_<i>/next_obs/<camera>_image   (t, h, w, 3) u8, that followed: a virtual dataset, no second copy
    data/demo_<i>/final_obs/<camera>_image  (h, w, 3) u8, what the last action led to, as `final_state`
    data                                    attrs: cameras, image_size, and JSON in appearance

robomimic reads `next_obs` for offline reinforcement learning, not for cloning. It is `obs` shifted by one,
so it refers to the pictures in the same file. An episode that has no `final_state` repeats its last picture.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from torch import Tensor

from caliper.data.dataset import numbered
from caliper.errors import CaliperError
from caliper.types import ObsSpec


def refuse_pictures(path: Path, cameras: tuple[str, ...]) -> None:
    """Refuses a file that already holds pictures from one of the cameras.

    Raises:
        CaliperError: it does; names the camera.
    """
    with h5py.File(path, "r") as file:
        for name, demo in file["data"].items():
            for camera in cameras:
                if f"obs/{camera}_image" in demo:
                    raise CaliperError(
                        f"{path} already holds pictures from {camera} in {name}; replay the file without them"
                    )


def add_pictures(
    source: Path, path: Path, spec: ObsSpec, appearance: Mapping[str, Any], episodes: Iterable[Tensor]
) -> None:
    """Writes a copy of a dataset file with pictures.

    Args:
        source: the dataset file, all of which is copied.
        path: the file to make.
        spec: cameras and size of the pictures.
        appearance: how they look, for the file's attribute.
        episodes: per episode, in the order of `read_dataset`: uint8 (t + 1, v, 3, h, w).

    Raises:
        OSError: a write failed.
    """
    shutil.copyfile(source, path)
    with h5py.File(path, "r+") as file:
        group = file["data"]
        group.attrs["cameras"] = list(spec.cameras)
        group.attrs["image_size"] = spec.size
        group.attrs["appearance"] = json.dumps(dict(appearance))
        names = numbered(group, "demo_")
        for name, pixels in zip(names, episodes, strict=True):
            images = pixels.permute(1, 0, 3, 4, 2).cpu().numpy()  # (v, t + 1, h, w, c)
            if images.shape[1] == len(group[name]["actions"]):  # see `read_dataset`
                images = np.concatenate([images, images[:, -1:]], axis=1)
            try:
                for camera, view in zip(spec.cameras, images, strict=True):
                    _add(group[name], f"{camera}_image", view)
                file.flush()
            except RuntimeError as error:  # h5py's other name for a failed write
                raise OSError(str(error).splitlines()[0]) from error


def _add(demo: h5py.Group, name: str, images: np.ndarray) -> None:
    t, shape = len(images) - 1, images.shape[1:]
    obs = demo.create_dataset(  # a picture is what is read at a time
        f"obs/{name}", data=images[:t], chunks=(1, *shape), compression="gzip", compression_opts=1
    )
    last = demo.create_dataset(f"final_obs/{name}", data=images[t], chunks=shape, compression="gzip")
    following = h5py.VirtualLayout((t, *shape), np.uint8)
    following[: t - 1] = h5py.VirtualSource(".", obs.name, obs.shape)[1:]  # "." is this file, under any name
    following[t - 1] = h5py.VirtualSource(".", last.name, shape)
    demo.create_virtual_dataset(f"next_obs/{name}", following)
