"""What a recording looks like: its states drawn, and compared with the images that it brings along."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import mujoco
import numpy as np
import torch
import warp as wp
from numpy.typing import NDArray
from torch import Tensor

from caliper.data.formats.recordings import RecordedDemo, Recording, read_images
from caliper.envs.engines.base import Engine
from caliper.envs.engines.sizes import Sizes, sized
from caliper.envs.render import make_renderer
from caliper.envs.sim import task_scene
from caliper.errors import CaliperError, one_of
from caliper.importing.controller import Array
from caliper.importing.model.compiled import physics_model, visual_model
from caliper.importing.scene import carry, put_fixtures
from caliper.importing.tasks import find_task, refuse_robots
from caliper.machine import cores

NUM_ENVS = 16  # states drawn side by side
COMPARED = 12  # images of a demo that are compared with ours
SURELY = 0.003  # correlation; images that agree better another way round by this much are that way round
Frames = NDArray[np.uint8]


class _Poses:
    """As much of an engine as a renderer needs: states of any model, shown and never stepped."""

    def __init__(self, model: mujoco.MjModel, envs: int) -> None:
        self.model, self.num_envs = model, envs
        self.device, self.wp_device = torch.device("cpu"), wp.get_device("cpu")
        self._data = mujoco.MjData(model)
        self._poses = {
            "geom_xpos": torch.zeros(envs, model.ngeom, 3, dtype=torch.float64),
            "geom_xmat": torch.zeros(envs, model.ngeom, 3, 3, dtype=torch.float64),
            "cam_xpos": torch.zeros(envs, model.ncam, 3, dtype=torch.float64),
            "cam_xmat": torch.zeros(envs, model.ncam, 3, 3, dtype=torch.float64),
            "light_xpos": torch.zeros(envs, model.nlight, 3, dtype=torch.float64),
            "light_xdir": torch.zeros(envs, model.nlight, 3, dtype=torch.float64),
        }
        self._size = {}
        if sized(model):
            self._size = {"geom_size": torch.from_numpy(np.repeat(model.geom_size[None], envs, 0))}
        self._sizes = Sizes(model, self._size)
        self._fixtures = torch.zeros(envs, model.nmocap, 3, dtype=torch.float64)

    def show(self, states: Array) -> None:
        """Puts envs into states (m, s)."""
        for i, state in enumerate(states):
            self._data.qpos[:] = state[1 : 1 + self.model.nq]
            put_fixtures(self._data, state)
            mujoco.mj_kinematics(self.model, self._data)
            mujoco.mj_camlight(self.model, self._data)
            for name, poses in self._poses.items():
                poses[i] = torch.as_tensor(getattr(self._data, name)).view(poses.shape[1:])
            self._fixtures[i] = torch.from_numpy(self._data.mocap_pos)
        self._sizes.fit(self._fixtures)

    def pose_arrays(self) -> dict[str, Tensor]:
        return self._poses | self._size


def drawn(
    model: mujoco.MjModel, states: Array, cameras: tuple[str, ...], size: int, antialias: int = 2
) -> Iterator[Frames]:
    """Images of states (t, s), uint8 (m, v, h, w, 3), a batch of steps at a time.

    Raises:
        CaliperError: the model has no such camera; names those it has.
    """
    known = [model.camera(i).name for i in range(model.ncam)]
    if unknown := [name for name in cameras if name not in known]:
        raise CaliperError(f"there is no camera '{unknown[0]}'; {one_of(known, unknown[0])}")
    poses = _Poses(model, min(NUM_ENVS, len(states)))
    threads = cores()
    renderer = make_renderer(cast(Engine, poses), cameras, size, threads, antialias)
    for first in range(0, len(states), NUM_ENVS):
        batch = states[first : first + NUM_ENVS]
        poses.show(batch)
        yield np.asarray(renderer.render()[: len(batch)].permute(0, 1, 3, 4, 2))


@dataclass(frozen=True)
class Staged:
    """A demo's states and a model that shows them.

    Attributes:
        model: Caliper's scene of the task, or the file's own model where there is none.
        states: (t, s) of that model.
        task: of the scene, or None.
        lost: textures and meshes that the file's own model names and nobody has.
    """

    model: mujoco.MjModel
    states: Array
    task: str | None
    lost: Sequence[str] = ()


def stage(
    recording: Recording, demo: RecordedDemo, task: str | None = None, assets: Path | None = None
) -> Staged:
    """A demo in Caliper's scene of its task; in the file's own model where it has no scene here.

    Raises:
        CaliperError: the demo is unreadable, or neither model can be had.
    """
    if demo.fault is not None:
        raise CaliperError(f"{recording.path}: {demo.name}: {demo.fault}")
    try:
        name = find_task(recording, task)
        refuse_robots(recording)
        model = task_scene(name).model
        if demo.model is None:
            return Staged(model, _fitting(recording, demo, model), name)
        own = physics_model(demo.model, assets)
        return Staged(model, carry(own, model, _fitting(recording, demo, own)).states, name)
    except CaliperError:
        if demo.model is None or task is not None:
            raise
    try:
        model, lost = visual_model(demo.model, assets)
    except CaliperError as error:
        raise CaliperError(f"{recording.path}: {demo.name}: {error}") from error
    return Staged(model, _fitting(recording, demo, model), None, lost)


def _fitting(recording: Recording, demo: RecordedDemo, model: mujoco.MjModel) -> Array:
    if demo.states.shape[1] != 1 + model.nq + model.nv:
        raise CaliperError(
            f"{recording.path}: {demo.name}: its states have {demo.states.shape[1]} numbers, the model "
            f"{1 + model.nq + model.nv}"
        )
    return demo.states


def camera_of(images: str) -> str:
    """The camera behind the name of recorded images, in robomimic's and LIBERO's words.

    >>> camera_of("agentview_image"), camera_of("eye_in_hand_rgb")
    ('agentview', 'robot0_eye_in_hand')
    """
    name = re.sub(r"_(image|rgb)$", "", images)
    return "robot0_eye_in_hand" if name == "eye_in_hand" else name


@dataclass(frozen=True)
class Likeness:
    """How recorded images compare with ours of the same states.

    Attributes:
        difference: mean absolute difference of the colours as stored, of 255.
        correlation: of the colours, turned as `faults` says.
        faults: what was done to the images, such as "upside down"; none if they are as ours.
    """

    difference: float
    correlation: float
    faults: Sequence[str]

    def __str__(self) -> str:
        found = " and ".join(self.faults) if self.faults else "the right way round, RGB"
        return f"differ from ours by {self.difference:.0f} of 255 a colour; {found}"


def compare(recorded: Frames, ours: Frames) -> Likeness:
    """Which way round recorded images are, and how much they differ as they are.

    Args:
        recorded: uint8 (k, h, w, 3).
        ours: of the same states, likewise.
    """
    ways: dict[tuple[str, ...], Frames] = {}
    for channels in ((), ("BGR",)):
        source = recorded[..., ::-1] if channels else recorded
        ways[channels] = source
        ways["upside down", *channels] = source[:, ::-1]
        ways["mirrored", *channels] = source[:, :, ::-1]
        ways["turned by half a turn", *channels] = source[:, ::-1, ::-1]
    found = {way: _correlation(images, ours) for way, images in ways.items()}
    best = max(found, key=found.__getitem__)
    if found[best] - found[()] < SURELY:
        best = ()
    difference = np.abs(recorded.astype(np.int16) - ours.astype(np.int16)).mean()
    return Likeness(float(difference), found[best], best)


def _correlation(a: Frames, b: Frames) -> float:
    """Of the colours, with one mean for all channels: a swap of red and blue has to show."""
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    x, y = x - x.mean(), y - y.mean()
    size = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / size if size else 0.0


def likenesses(recording: Recording, assets: Path | None = None) -> dict[str, Likeness]:
    """Each kind of image of a file, compared with ours on steps of its first demo.

    Raises:
        CaliperError: the file has no images, or its states cannot be drawn.
    """
    if not recording.images:
        raise CaliperError(f"{recording.path} holds no images to compare")
    demo = next((d for d in recording.demos if d.fault is None), recording.demos[0])
    staged = stage(recording, demo, assets=assets)
    rows = np.unique(np.linspace(0, len(staged.states) - 1, COMPARED).astype(np.int64))
    known = [staged.model.camera(i).name for i in range(staged.model.ncam)]
    found = {}
    for name, (height, width, _) in recording.images.items():
        if height == width and (camera := camera_of(name)) in known:
            ours = np.concatenate(list(drawn(staged.model, staged.states[rows], (camera,), height)))[:, 0]
            found[name] = compare(read_images(recording.path, demo.name, name, rows), ours)
    return found
