"""Images on a CPU: the ray tracer's pixels without rays, five to fifteen times faster.

`geometry` makes flat arrays of the scene, `visible` finds what each sample sees, `shade` colours it. What
neither moves nor changes its light, seen by a camera that stands still, is drawn once (a layer) and copied.
Threads take images in turn, without the GIL; each image is one thread's work from arrays that no other
writes, so that its bits depend neither on the threads nor on the other envs. They may differ between kinds
of CPU, whose vector units and fused multiply-adds numba compiles for.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from caliper.envs.render.base import Frames, Posed, Renderer, Size, check_cameras, height_width
from caliper.envs.render.compiled import draw
from caliper.envs.render.geometry import is_still, stretched, tables
from caliper.envs.render.samples import Scratch, scratch
from caliper.envs.scene.appearance import Appearance, own_colours
from caliper.envs.scene.scenes import VISUAL_GROUP
from caliper.errors import CaliperError

FARTHEST = 1e6  # metres; an env with anything beyond, or not finite, has blown up and has no image


class Layers(NamedTuple):
    """What still cameras see of what is still: one for all envs, or one each if they look different."""

    depth: NDArray[Any]  # float32 (1 or n, v, samples)
    names: NDArray[Any]  # int32, likewise
    rgb: NDArray[Any]  # uint8 (1 or n, v, 3, h, w)
    pose: NDArray[Any]  # float32 (1 or n, v, 12) the camera it was drawn from
    drawn: NDArray[Any]  # bool (1 or n, v)


class Rasteriser(Renderer):
    """The renderer of the CPU."""

    def __init__(
        self,
        engine: Posed,
        cameras: tuple[str, ...],
        size: Size,
        threads: int = 1,
        antialias: int = 1,
        depth: bool = False,
    ) -> None:
        """Makes the scene's arrays (about a second, once a model); the first time on a machine, compiles.

        Args:
            engine: whose envs to draw.
            cameras: names of cameras in the scene.
            size: side of the square images, or height and width, pixels.
            threads: that draw side by side.
            antialias: samples per pixel and axis; the cost grows with its square.
            depth: whether `frames` will be asked for.

        Raises:
            CaliperError: no such camera in the scene, or something in it that the rasteriser does not draw.
        """
        model, n, v = engine.model, engine.num_envs, len(cameras)
        check_cameras(model, cameras)
        height, width = height_width(size)
        self._engine, self._model, self._antialias = engine, model, antialias
        self._tables = tables(model, VISUAL_GROUP)
        self._sizes, self._wear = self._tables.size[None], self._tables.wear[None]  # of all envs
        ids = np.array([model.camera(name).id for name in cameras], np.int32)
        self._cameras = ids
        lenses = [lens(model, int(c), height * antialias, width * antialias) for c in ids]
        self._lenses = np.array(lenses, np.float32).reshape(-1, 4)
        still_light = all(is_still(model, b) for b in model.light_bodyid)
        self._still = np.array(
            [is_still(model, model.cam_bodyid[c]) and model.cam_mode[c] == 0 and still_light for c in ids],
            bool,
        )
        workers = max(1, min(threads, n * v))
        samples = (height * antialias, width * antialias)
        self._scratch = [scratch(self._tables, *samples, width) for _ in range(workers)]
        self._pool = ThreadPoolExecutor(workers - 1) if workers > 1 else None  # beside the caller's thread
        self._rgb = np.zeros((n, v, 3, height, width), np.uint8)
        shape = (n, v, height, width) if depth else (n, v, 0, 0)
        self._depth, self._geoms = np.zeros(shape, np.float32), np.full(shape, -1, np.int32)
        self._colour = np.repeat(own_colours(model)[None, :, :3], n, 0)
        self._lamp = np.repeat(model.light_diffuse[None].astype(np.float32), n, 0)
        self._shift: NDArray[Any] | None = None
        self._turn = np.zeros(0, np.float32)
        self._layers = self._blank(1)
        self._all = np.ones(n, bool)

    def _blank(self, count: int) -> Layers:
        v, samples = self._rgb.shape[1], len(self._scratch[0].depth)
        return Layers(
            np.zeros((count, v, samples), np.float32),
            np.zeros((count, v, samples), np.int32),
            np.zeros((count, *self._rgb.shape[1:]), np.uint8),
            np.zeros((count, v, 12), np.float32),
            np.zeros((count, v), bool),
        )

    def dress(self, appearance: Appearance, changed: Tensor | None = None) -> None:
        """See `Renderer`."""
        headlight, lamps = (
            appearance.headlight.numpy()[:, None, None],
            appearance.lamps.numpy()[:, None, None],
        )
        self._colour[:] = own_colours(self._model)[None, :, :3] * (appearance.tint.numpy() * headlight)
        self._lamp[:] = self._model.light_diffuse[None] * (lamps / headlight)
        self._shift, self._turn = appearance.shift.numpy(), appearance.turn.numpy()
        if len(self._layers.drawn) < len(self._all):
            self._layers = self._blank(len(self._all))
        self._layers.drawn[slice(None) if changed is None else changed.numpy()] = False

    def render(self, changed: Tensor | None = None) -> Tensor:
        """See `Renderer`."""
        self._draw(changed)
        return torch.from_numpy(self._rgb.copy())

    def frames(self, changed: Tensor | None = None) -> Frames:
        """See `Renderer`.

        Raises:
            CaliperError: the renderer was made without `depth`.
        """
        if not self._depth.size and self._rgb.size:
            raise CaliperError("this renderer draws no depth; make it with depth=True")
        self._draw(changed)
        return Frames(*(torch.from_numpy(x.copy()) for x in (self._rgb, self._depth, self._geoms)))

    def _draw(self, changed: Tensor | None) -> None:
        n = len(self._all)
        poses = {k: np.asarray(x, np.float32) for k, x in self._engine.pose_arrays().items()}
        geoms, axes = poses["geom_xmat"].reshape(n, -1, 3, 3), poses["cam_xmat"].reshape(n, -1, 3, 3)
        cameras, light = poses["cam_xpos"], np.stack([poses["light_xpos"], poses["light_xdir"]], 1)
        if self._shift is not None:
            cameras = cameras + (axes * self._shift[..., None, :]).sum(-1)
            axes = (axes[..., None] * self._turn[..., None, :, :]).sum(-2)
        wanted = self._all if changed is None else changed.numpy()
        positions = poses["geom_xpos"]
        if "geom_size" in poses:
            self._sizes = poses["geom_size"][:, self._tables.geom]
            self._wear = stretched(self._tables, self._sizes)
        parts = (positions, geoms, cameras, axes, light)
        sound = np.logical_and.reduce([(np.abs(x) < FARTHEST).reshape(n, -1).all(1) for x in parts])
        if not sound.all():  # NaN is not either
            self._rgb[~sound], wanted = 0, wanted & sound
            if not sound.any():
                return
            like = np.where(sound, np.arange(n), sound.argmax())
            positions, geoms, cameras, axes, light = (x[like] for x in parts)
        common = (
            self._tables, self._sizes, self._wear, positions, geoms, cameras, axes, light, self._cameras,
            self._lenses, self._still, self._colour, self._lamp, self._layers, wanted, self._antialias,
            self._rgb, self._depth, self._geoms,
        )  # fmt: skip
        if len(self._layers.drawn) == 1:  # for all envs: before they are drawn
            draw(*common, self._scratch[0], True, np.zeros(1, np.int64))
        counter = np.zeros(1, np.int64)  # of the images that somebody has taken

        def work(memory: Scratch) -> None:
            draw(*common, memory, False, counter)

        mine, *others = self._scratch
        drawing = [self._pool.submit(work, memory) for memory in others] if self._pool else []
        work(mine)
        for done in drawing:
            done.result()


def lens(model: mujoco.MjModel, camera: int, height: int, width: int) -> tuple[float, float, float, float]:
    """Focal lengths along columns and rows, and the optical axis' column and row, in pixels.

    Raises:
        CaliperError: an orthographic camera.
    """
    if model.cam_projection[camera] != int(mujoco.mjtProjection.mjPROJ_PERSPECTIVE):
        name = model.camera(camera).name
        raise CaliperError(f"camera '{name}' is orthographic, which the rasteriser does not draw")
    sensor = model.cam_sensorsize[camera].astype(float)
    if sensor[1] == 0:
        focal = height / 2 / np.tan(np.radians(float(model.cam_fovy[camera])) / 2)
        return focal, focal, (width - 1) / 2, (height - 1) / 2
    fx, fy, cx, cy = model.cam_intrinsic[camera].astype(float)
    aspect = width / height  # the image is the largest part of the sensor of its shape
    w, h = min(sensor[0], sensor[1] * aspect), min(sensor[1], sensor[0] / aspect)
    kx, ky = width * fx / w, height * fy / h
    return kx, ky, kx * (w / 2 - cx) / fx - 0.5, ky * (h / 2 - cy) / fy - 0.5
