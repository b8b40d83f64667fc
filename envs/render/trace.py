"""The renderer of the GPU, and what the CPU's is held to: MuJoCo Warp's ray tracer. No OpenGL, no display.

It draws from poses alone, so it serves either engine, on a CPU too: each control step the engine's poses are
copied into the tracer's own data, envs are traced in chunks (one thread each on a CPU), and the packed
colours are unpacked to uint8 channels-first images. What looks other than the scene says
(`caliper.envs.scene.appearance`) is changed on those copies.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import mujoco
import mujoco_warp as mjw
import torch
import warp as wp
from torch import Tensor

from caliper.envs.engines.base import POSES, Engine
from caliper.envs.engines.sizes import sized
from caliper.envs.graphs import TorchGraph, WarpGraph, scope
from caliper.envs.render.base import Frames, Renderer, Size, check_cameras, height_width
from caliper.envs.scene.appearance import Appearance, own_colours
from caliper.envs.scene.scenes import VISUAL_GROUP
from caliper.errors import CaliperError

CPU_CHUNK = 4  # envs traced together by one thread
AWAY = -1e3  # height, metres, from where a camera that looks down sees nothing: its rays end at once


class _Chunk:
    """The ray tracer's context for a slice of the envs."""

    def __init__(
        self,
        model: mujoco.MjModel,
        cameras: list[str],
        size: tuple[int, int],
        envs: slice,
        device: wp.Device,
        antialias: int,
        depth: bool,
    ) -> None:
        self.envs, self.device = envs, device
        n, (height, width) = envs.stop - envs.start, size
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        with scope(device):
            own = ["geom_rgba", "light_diffuse", *(["geom_size"] if sized(model) else [])]
            self.model = mjw.put_model(model, batch_sizes=dict.fromkeys(own, n))
            self.data = mjw.put_data(model, data, nworld=n)
            self.context = mjw.create_render_context(
                model,
                nworld=n,
                cam_res=(width, height),
                render_rgb=True,
                render_depth=depth,
                render_seg=depth,
                cam_active=cameras,
                enabled_geom_groups=[VISUAL_GROUP],
                enable_backface_culling=False,  # no camera is ever inside a geom
                enable_specular=False,
                enable_emission=False,
                samples_per_pixel=antialias,
            )
        self.poses = {k: wp.to_torch(getattr(self.data, k)) for k in POSES}
        if sized(model):
            self.poses["geom_size"] = wp.to_torch(self.model.geom_size)
        self.rgba, self.lamps = wp.to_torch(self.model.geom_rgba), wp.to_torch(self.model.light_diffuse)
        self.colours = torch.as_tensor(own_colours(model), device=self.rgba.device)
        self.full_lamps = self.lamps.clone()
        self.shift = torch.zeros_like(self.poses["cam_xpos"])
        self.turn = torch.eye(3, device=self.shift.device).repeat(*self.shift.shape[:2], 1, 1)
        packed = wp.to_torch(self.context.rgb_data.view(wp.int32)).view(torch.uint8)
        self.image = packed.view(n, len(cameras), height, width, 4)  # n v h w (b g r a)
        if depth:
            self.depth = wp.to_torch(self.context.depth_data).view(self.image.shape[:-1])
            seen = wp.to_torch(self.context.seg_data.view(wp.int32))
            self.geoms = seen.view(*self.image.shape[:-1], 2)[..., 0]  # the other is the kind: all are geoms

        self.replay = WarpGraph(device)
        self.away = torch.tensor([0.0, 0.0, AWAY], device=wp.device_to_torch(device))
        self.down = torch.eye(3, device=self.away.device)

    def load(self, poses: dict[str, Tensor], wanted: Tensor) -> None:
        for name, pose in self.poses.items():
            pose.copy_(poses[name][self.envs].view(pose.shape))
        position, axes = self.poses["cam_xpos"], self.poses["cam_xmat"]
        # Products and sums, not matrix products: exact where nothing moves, whatever the device.
        position += (axes * self.shift[..., None, :]).sum(-1)
        axes.copy_((axes[..., None] * self.turn[..., None, :, :]).sum(-2))
        here = wanted[self.envs, None, None]
        position.copy_(torch.where(here, position, self.away))
        axes.copy_(torch.where(here[..., None], axes, self.down))

    def dress(self, appearance: Appearance) -> None:
        headlight = appearance.headlight[self.envs, None, None]
        self.rgba.copy_(self.colours)
        self.rgba[..., :3] *= appearance.tint[self.envs] * headlight
        self.lamps.copy_(self.full_lamps * appearance.lamps[self.envs, None, None] / headlight)
        self.shift.copy_(appearance.shift[self.envs])
        self.turn.copy_(appearance.turn[self.envs])

    def trace(self) -> None:
        if self.device.is_cuda:  # a part of the renderer's recording
            with scope(self.device):
                self._launch()
        else:
            self.replay(self._launch)

    def _launch(self) -> None:
        mjw.refit_bvh(self.model, self.data, self.context)
        mjw.render(self.model, self.data, self.context)

    def unpack(self, out: tuple[Tensor, ...], wanted: Tensor) -> None:
        rgb = self.image[..., :3].flip(-1).permute(0, 1, 4, 2, 3)  # n v c h w
        drawn = (rgb, self.depth, self.geoms) if len(out) > 1 else (rgb,)
        for old, new in zip(out, drawn, strict=True):
            here = wanted[self.envs].view(-1, *[1] * (new.dim() - 1))
            old[self.envs] = torch.where(here, new, old[self.envs])


class RayTracer(Renderer):
    """The renderer of the GPU."""

    def __init__(
        self,
        engine: Engine,
        cameras: tuple[str, ...],
        size: Size,
        threads: int = 1,
        antialias: int = 1,
        depth: bool = False,
    ) -> None:
        """Builds the ray tracer's acceleration structures (about half a second).

        Args:
            engine: whose envs to draw.
            cameras: names of cameras in the scene.
            size: side of the square images, or height and width, pixels.
            threads: chunks of envs traced side by side on a CPU.
            antialias: rays per pixel and axis; the cost grows with its square.
            depth: whether `frames` will be asked for.

        Raises:
            CaliperError: no such camera in the scene.
        """
        model, n = engine.model, engine.num_envs
        check_cameras(model, cameras)
        shape = (n, len(cameras), *height_width(size))
        chunk = n if engine.wp_device.is_cuda else min(CPU_CHUNK, -(-n // threads))
        slices = [slice(i, min(i + chunk, n)) for i in range(0, n, chunk)]
        self._chunks = [
            _Chunk(model, list(cameras), shape[2:], part, engine.wp_device, antialias, depth)
            for part in slices
        ]
        self._engine = engine
        self._pool = ThreadPoolExecutor(threads) if threads > 1 and len(slices) > 1 else None
        zeros = partial(torch.zeros, device=engine.device)
        self._out: tuple[Tensor, ...] = (zeros((*shape[:2], 3, *shape[2:]), dtype=torch.uint8),)
        if depth:
            self._out += zeros(shape), zeros(shape, dtype=torch.int32)
        self._wanted = torch.ones(n, dtype=torch.bool, device=engine.device)
        self._draw = TorchGraph(engine.device)

    def dress(self, appearance: Appearance, changed: Tensor | None = None) -> None:
        """See `Renderer`. Written in place, without waiting for the device."""
        for chunk in self._chunks:
            chunk.dress(appearance)

    def render(self, changed: Tensor | None = None) -> Tensor:
        """See `Renderer`."""
        self._wanted.copy_(torch.ones_like(self._wanted) if changed is None else changed)
        return self._draw(self._draw_wanted)[0]

    def frames(self, changed: Tensor | None = None) -> Frames:
        """See `Renderer`.

        Raises:
            CaliperError: the renderer was made without `depth`.
        """
        if len(self._out) == 1:
            raise CaliperError("this renderer draws no depth; make it with depth=True")
        self._wanted.copy_(torch.ones_like(self._wanted) if changed is None else changed)
        return Frames(*self._draw(self._draw_wanted))

    def _draw_wanted(self) -> tuple[Tensor, ...]:
        chunks = self._chunks
        if self._engine.device.type == "cpu":
            chunks = [chunk for chunk in chunks if bool(self._wanted[chunk.envs].any())]
        poses = self._engine.pose_arrays()
        for chunk in chunks:
            chunk.load(poses, self._wanted)
        # Only replays run in the pool. Warp's launches from Python are not safe in threads: now and then a
        # chunk lost most of its geoms. And a torch operation there would give each thread an OpenMP team;
        # with more such threads than cores the learner would sleep at every barrier from then on.
        if self._pool is None or not all(chunk.replay.recorded for chunk in chunks):
            for chunk in chunks:
                chunk.trace()
        else:
            list(self._pool.map(_Chunk.trace, chunks))
        for chunk in chunks:
            chunk.unpack(self._out, self._wanted)
        return self._out
