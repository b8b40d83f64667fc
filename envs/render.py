"""The only renderer: MuJoCo Warp's ray tracer, on CPU and GPU alike. No OpenGL, no display.

It draws from poses alone, so it serves either engine: each control step the engine's geom and camera poses
are copied into the tracer's own data, worlds are traced in chunks (one thread each on a CPU), and the
packed colours are unpacked to uint8 channels-first images. What looks other than the scene says
(`caliper.envs.appearance`) is changed on those copies.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import mujoco
import mujoco_warp as mjw
import torch
import warp as wp
from torch import Tensor

from caliper.envs.appearance import Appearance, own_colours
from caliper.envs.engines.base import Engine
from caliper.envs.graphs import TorchGraph, WarpGraph, scope
from caliper.envs.scenes import VISUAL_GROUP
from caliper.errors import CaliperError

CPU_CHUNK = 4  # worlds traced together by one thread
AWAY = -1e3  # height, metres, from where a camera that looks down sees nothing: its rays end at once


class _Chunk:
    """The ray tracer's context for a slice of the worlds."""

    def __init__(
        self,
        model: mujoco.MjModel,
        cameras: list[str],
        size: int,
        worlds: slice,
        device: wp.Device,
        antialias: int,
    ) -> None:
        self.worlds, self.device = worlds, device
        n = worlds.stop - worlds.start
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        with scope(device):
            self.model = mjw.put_model(model, batch_sizes={"geom_rgba": n, "light_diffuse": n})
            self.data = mjw.put_data(model, data, nworld=n)
            self.context = mjw.create_render_context(
                model,
                nworld=n,
                cam_res=(size, size),
                render_rgb=True,
                render_depth=False,
                render_seg=False,
                cam_active=cameras,
                enabled_geom_groups=[VISUAL_GROUP],
                enable_backface_culling=False,  # no camera is ever inside a geom
                enable_specular=False,
                enable_emission=False,
                samples_per_pixel=antialias,
            )
        self.poses = {
            k: wp.to_torch(getattr(self.data, k)) for k in ("geom_xpos", "geom_xmat", "cam_xpos", "cam_xmat")
        }
        self.rgba, self.lamps = wp.to_torch(self.model.geom_rgba), wp.to_torch(self.model.light_diffuse)
        self.colours = torch.as_tensor(own_colours(model), device=self.rgba.device)
        self.full_lamps = self.lamps.clone()
        self.shift = torch.zeros_like(self.poses["cam_xpos"])
        self.turn = torch.eye(3, device=self.shift.device).repeat(*self.shift.shape[:2], 1, 1)
        packed = wp.to_torch(self.context.rgb_data.view(wp.int32)).view(torch.uint8)
        self.image = packed.view(n, len(cameras), size, size, 4)  # n v h w (b g r a)

        self.replay = WarpGraph(device)
        self.away = torch.tensor([0.0, 0.0, AWAY], device=wp.device_to_torch(device))
        self.down = torch.eye(3, device=self.away.device)

    def load(self, poses: dict[str, Tensor], wanted: Tensor) -> None:
        for name, pose in self.poses.items():
            pose.copy_(poses[name][self.worlds].view(pose.shape))
        position, axes = self.poses["cam_xpos"], self.poses["cam_xmat"]
        # Products and sums, not matrix products: exact where nothing moves, whatever the device.
        position += (axes * self.shift[..., None, :]).sum(-1)
        axes.copy_((axes[..., None] * self.turn[..., None, :, :]).sum(-2))
        here = wanted[self.worlds, None, None]
        position.copy_(torch.where(here, position, self.away))
        axes.copy_(torch.where(here[..., None], axes, self.down))

    def dress(self, look: Appearance) -> None:
        headlight = look.headlight[self.worlds, None, None]
        self.rgba.copy_(self.colours)
        self.rgba[..., :3] *= look.tint[self.worlds] * headlight
        self.lamps.copy_(self.full_lamps * look.lamps[self.worlds, None, None] / headlight)
        self.shift.copy_(look.shift[self.worlds])
        self.turn.copy_(look.turn[self.worlds])

    def trace(self) -> None:
        if self.device.is_cuda:  # a part of the renderer's recording
            with scope(self.device):
                self._launch()
        else:
            self.replay(self._launch)

    def _launch(self) -> None:
        mjw.refit_bvh(self.model, self.data, self.context)
        mjw.render(self.model, self.data, self.context)

    def unpack(self, out: Tensor, wanted: Tensor) -> None:
        rgb = self.image[..., :3].flip(-1).permute(0, 1, 4, 2, 3)  # n v c h w
        here = wanted[self.worlds, None, None, None, None]
        out[self.worlds] = torch.where(here, rgb, out[self.worlds])


class Renderer:
    """Pictures of n worlds from given cameras."""

    def __init__(
        self, engine: Engine, cameras: tuple[str, ...], size: int, threads: int = 1, antialias: int = 1
    ) -> None:
        """Builds the ray tracer's acceleration structures (about half a second).

        Args:
            engine: whose worlds to draw.
            cameras: names of cameras in the scene.
            size: side of the square images, pixels.
            threads: chunks of worlds traced side by side on a CPU.
            antialias: rays per pixel and axis; the cost grows with its square.

        Raises:
            CaliperError: no such camera in the scene.
        """
        model, n = engine.model, engine.num_worlds
        known = [model.camera(i).name for i in range(model.ncam)]
        for name in cameras:
            if name not in known:
                raise CaliperError(f"camera '{name}' is not in the scene; choose from: {', '.join(known)}")
        chunk = n if engine.wp_device.is_cuda else min(CPU_CHUNK, -(-n // threads))
        slices = [slice(i, min(i + chunk, n)) for i in range(0, n, chunk)]
        self._chunks = [
            _Chunk(model, list(cameras), size, part, engine.wp_device, antialias) for part in slices
        ]
        self._engine = engine
        self._pool = ThreadPoolExecutor(threads) if threads > 1 and len(slices) > 1 else None
        self._out = torch.zeros((n, len(cameras), 3, size, size), dtype=torch.uint8, device=engine.device)
        self._wanted = torch.ones(n, dtype=torch.bool, device=engine.device)
        self._draw = TorchGraph(engine.device)

    def dress(self, look: Appearance) -> None:
        """Draws the worlds under a look from now on; written in place, without waiting for the device."""
        for chunk in self._chunks:
            chunk.dress(look)

    def render(self, changed: Tensor | None = None) -> Tensor:
        """Draws the worlds as they are now.

        Args:
            changed: bool (n,), whom to draw; the others' pictures are those of the last call. None draws all.

        Returns:
            uint8 (n, v, 3, h, w), RGB, origin at the top left; a tensor of its own.
        """
        self._wanted.copy_(torch.ones_like(self._wanted) if changed is None else changed)
        return self._draw(self._draw_wanted)[0]

    def _draw_wanted(self) -> tuple[Tensor]:
        chunks = self._chunks
        if self._engine.device.type == "cpu":
            chunks = [chunk for chunk in chunks if bool(self._wanted[chunk.worlds].any())]
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
        return (self._out,)
