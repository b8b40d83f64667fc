"""The images of an observation: from cameras of any sizes, with depth and instances where they are wanted."""

from __future__ import annotations

from collections.abc import Callable

import mujoco
import torch
from torch import Tensor

from caliper.envs.observation.instances import instances
from caliper.envs.render.base import Renderer, Size
from caliper.types import ObsSpec

GetRenderer = Callable[
    [tuple[str, ...], Size, bool], Renderer
]  # of cameras and a size, with depth or without


class Views:
    """Draws what a spec says, one renderer for the cameras of one size."""

    def __init__(self, spec: ObsSpec, model: mujoco.MjModel, device: torch.device) -> None:
        """Args: cameras, sizes and kinds of images; the scene; where the images are."""
        self._spec, self._device = spec, device
        self._planes = spec.planes
        if spec.instances:
            # The renderers' -1, where nothing is, reads the last entry.
            numbers = torch.as_tensor(instances(model)[1])
            self._instance = torch.cat([numbers, numbers.new_zeros(1)]).to(device)

    def draw(self, n: int, renderer: GetRenderer, changed: Tensor | None = None) -> dict[str, Tensor]:
        """The images now by their names in `ObsSpec.planes`.

        Args:
            n: envs.
            renderer: gives the renderer of some cameras.
            changed: see `Renderer.render`.
        """
        spec, images = self._spec, {}
        if not spec.cameras:
            shape = (n, *self._planes["pixels"].shape)
            return {"pixels": torch.zeros(shape, dtype=torch.uint8, device=self._device)}
        drawn: dict[tuple[int, int], dict[str, Tensor]] = {}
        for name, plane in self._planes.items():
            if plane.size not in drawn:
                cameras = tuple(spec.cameras[i] for i in plane.cameras)
                drawn[plane.size] = self._of_one_size(renderer, cameras, plane.size, changed)
            images[name] = drawn[plane.size][plane.kind]
        return images

    def _of_one_size(
        self, renderer: GetRenderer, cameras: tuple[str, ...], size: tuple[int, int], changed: Tensor | None
    ) -> dict[str, Tensor]:
        square: Size = size[0] if size[0] == size[1] else size
        if not (self._spec.depth or self._spec.instances):
            return {"pixels": renderer(cameras, square, False).render(changed)}
        frames = renderer(cameras, square, True).frames(changed)
        seen = {"pixels": frames.rgb}
        if self._spec.depth:
            seen["depth"] = frames.depth.half()[:, :, None]
        if self._spec.instances:
            seen["segmentation"] = self._instance[frames.geoms.long()][:, :, None]
        return seen
