"""What a renderer offers: images of the envs of an engine, from given cameras, as they are now."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import mujoco
from torch import Tensor

from caliper.envs.scene.appearance import Appearance
from caliper.errors import CaliperError, one_of

Size = int | tuple[int, int]  # side of a square image, or height and width, pixels


@dataclass(frozen=True, slots=True)
class Frames:
    """Images with what they show.

    Attributes:
        rgb: uint8 (n, v, 3, h, w), origin at the top left.
        depth: float32 (n, v, h, w), metres along the camera's axis; 0 where nothing is.
        geoms: int32 (n, v, h, w), the geoms' indices in the model; -1 where nothing is.
    """

    rgb: Tensor
    depth: Tensor
    geoms: Tensor


class Renderer(ABC):
    """Images of n envs from v cameras."""

    @abstractmethod
    def dress(self, appearance: Appearance, changed: Tensor | None = None) -> None:
        """Draws the envs under an appearance from now on.

        Args:
            appearance: of all envs.
            changed: bool (n,), where it is another than before; None is everywhere.
        """

    @abstractmethod
    def render(self, changed: Tensor | None = None) -> Tensor:
        """Draws the envs as they are now.

        Args:
            changed: bool (n,), whom to draw; the others' images are those of the last call. None draws all.

        Returns:
            uint8 (n, v, 3, h, w), RGB, origin at the top left; a tensor of its own.
        """

    @abstractmethod
    def frames(self, changed: Tensor | None = None) -> Frames:
        """As `render`, with depth and the geoms seen, by the renderer made with `depth`.

        Where pixels are antialiased, these two are those of a pixel's first sample, at its top left.
        """


def height_width(size: Size) -> tuple[int, int]:
    """Height and width, pixels."""
    return (size, size) if isinstance(size, int) else size


def check_cameras(model: mujoco.MjModel, cameras: tuple[str, ...]) -> None:
    """Looks whether cameras are there.

    Raises:
        CaliperError: no such camera in the scene.
    """
    known = [model.camera(i).name for i in range(model.ncam)]
    for name in cameras:
        if name not in known:
            raise CaliperError(f"camera '{name}' is not in the scene; {one_of(known, name)}")
