"""Observations beside the states of a dataset file, named and shaped as robosuite and robomimic do.

    data/demo_<i>/obs/<camera>_image        (t, h, w, 3) u8, at which the actions were taken
    data/demo_<i>/obs/<camera>_depth        (t, h, w, 1) f16, metres away; 0 where nothing is
    data/demo_<i>/obs/<camera>_segmentation_instance   (t, h, w, 1) u8, which of `instances`, from 1; or 0
    data/demo_<i>/obs/robot0_eef_pos        (t, 3) f32, and other numbers of the robot and the bodies
    data/demo_<i>/next_obs/<camera>_image   (t, h, w, 3) u8, that followed: a virtual dataset, no second copy
    data/demo_<i>/final_obs/<camera>_image  (h, w, 3) u8, what the last action led to, as `final_state`
    data                                    attrs: cameras, image_size, instances, and JSON in appearance

robomimic reads `next_obs` for offline reinforcement learning, not for cloning. It is `obs` shifted by one,
so it refers to the images in the same file. An episode that has no `final_state` repeats its last image.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caliper.data.dataset import numbered
from caliper.data.formats.hdf5 import Child, ForeignFile, UnreadableError
from caliper.errors import CaliperError
from caliper.types import ObsSpec


def refuse_images(path: Path, cameras: tuple[str, ...]) -> None:
    """Refuses a file that already holds images from one of the cameras.

    Raises:
        CaliperError: it does; names the camera. Or the file is damaged.
    """
    try:
        with ForeignFile(path) as file:
            for name in numbered(file.names("data"), "demo_"):
                held = file.names(f"data/{name}")
                taken = file.names(f"data/{name}/obs") if held.get("obs") == "group" else {}
                for camera in cameras:
                    if f"{camera}_image" in taken:
                        raise CaliperError(
                            f"{path} already holds images from {camera} in {name}; replay the file "
                            "without them"
                        )
    except UnreadableError as error:
        raise CaliperError(f"{path} {error}; make it again") from error


def add_images(
    source: Path,
    path: Path,
    spec: ObsSpec,
    appearance: Mapping[str, Any],
    episodes: Iterable[Mapping[str, NDArray[Any]]],
    instances: tuple[str, ...] = (),
) -> None:
    """Writes a copy of a dataset file with images and numbers; numbers that it has already stay.

    Args:
        source: the dataset file, all of which is copied.
        path: the file to make.
        spec: cameras, sizes and kinds of the images.
        appearance: how they look, for the file's attribute.
        episodes: per episode, in the order of `read_dataset`, the parts of its t + 1 single frames by name,
            images (t + 1, h, w, c) and numbers (t + 1, k).
        instances: what a segmentation's numbers stand for, from 1.

    Raises:
        OSError: a write failed.
    """
    with ForeignFile(source) as file:
        names = numbered(file.names("data"), "demo_")
        lengths = [len(file.array(f"data/{name}/actions")) for name in names]
    shutil.copyfile(source, path)
    attributes: dict[str, Any] = {}
    if spec.cameras:
        attributes = {
            "cameras": list(spec.cameras),
            "image_size": spec.size,  # or height and width of each
            **({"instances": list(instances)} if spec.instances else {}),
            "appearance": json.dumps(dict(appearance)),
        }
    process = Child("images_child.py", path)
    try:
        _tell(process, {"attributes": attributes})
        for name, length, views in zip(names, lengths, episodes, strict=True):
            about = [[key, part.dtype.str, part.shape] for key, part in views.items()]
            _tell(process, {"demo": name, "actions": length, "views": about}, views.values())
        _tell(process, {"end": True})
    finally:
        process.end()


def _tell(process: Child, message: Mapping[str, Any], images: Iterable[NDArray[Any]] = ()) -> None:
    """Sends a line and perhaps images, and waits until they are written."""
    try:
        process.asked.write(json.dumps(message).encode("ascii") + b"\n")
        for view in images:
            process.asked.write(np.ascontiguousarray(view).reshape(-1).view(np.uint8).data)
        process.asked.flush()
    except BrokenPipeError:
        pass  # it says why before it ends
    try:
        answer = json.loads(process.told.readline())
    except ValueError as error:
        raise OSError("the HDF5 library crashed on the file, or ran out of memory") from error
    if "error" in answer:
        raise OSError(str(answer["error"]))
