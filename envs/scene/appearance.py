"""How envs may look other than the scene says: cameras a little off, other light, other colours.

Physics knows nothing of it. The ray tracer reads colours and lamps per env (MuJoCo Warp's batched model
fields), but has the headlight compiled into its kernel. A surface's image is its colour times the sum of
its lights, so a headlight of h times its strength is drawn by colours times h and lamps over h.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from caliper.envs.seeding import uniform

_BY_MATERIAL = np.array([0.5, 0.5, 0.5, 1.0], np.float32)  # MuJoCo's geom colour that means the material's
_SHIFT, _TURN, _LIGHT, _COLOUR = 11, 12, 13, 14  # streams of random numbers


@dataclass(frozen=True, slots=True)
class AppearanceRanges:
    """How far appearances stray; each number but `dim` is drawn evenly from minus to plus its range.

    Attributes:
        shift: of a camera along each of its axes, metres.
        turn: of a camera about each of its axes, radians.
        light: relative change of the headlight, and of the lamps; below 1.
        colour: relative change of a surface's red, green and blue, its texture kept; below 1.
        dim: share of all light that is missing, the same in every env; with `light` below 1.
    """

    shift: float = 0.0
    turn: float = 0.0
    light: float = 0.0
    colour: float = 0.0
    dim: float = 0.0


AS_IT_IS = AppearanceRanges()
# By the names under which policies are evaluated.
NAMED_APPEARANCES = {
    "as_is": AS_IT_IS,
    "moved_camera": AppearanceRanges(shift=0.03, turn=0.05),
    "dim_light": AppearanceRanges(dim=0.5),
    "other_colours": AppearanceRanges(colour=0.4),
}


@dataclass(frozen=True, slots=True)
class VisualAugmentation:
    """Copies of recorded episodes: copy 0 looks as the scene says, each other copy in a way of its own.

    An appearance is drawn from (seed, episode, copy) alone, whatever the number of envs or of copies.

    Attributes:
        copies: how often each episode is rendered.
        ranges: how far the appearances of copies 1, 2, ... may stray.
        seed: another seed gives other appearances; below 2**19.
    """

    copies: int = 1
    ranges: AppearanceRanges = AS_IT_IS
    seed: int = 0

    def keys(self, episodes: Tensor, copy: int) -> Tensor | None:
        """What the appearances of episodes, int64 (n,), are drawn from; None for the scene as it is."""
        return (self.seed << 44) + (copy << 32) + episodes if copy else None


ONCE = VisualAugmentation()


@dataclass(frozen=True, slots=True)
class Appearance:
    """How each of n envs looks.

    Attributes:
        shift: float32 (n, cameras, 3), metres along a camera's own axes (right, up, backwards).
        turn: float32 (n, cameras, 3, 3), rotations in a camera's own frame.
        headlight, lamps: float32 (n,), factors on the light.
        tint: float32 (n, geoms, 3), factors on the colours.
    """

    shift: Tensor
    turn: Tensor
    headlight: Tensor
    lamps: Tensor
    tint: Tensor


class Appearances:
    """Draws the looks of one scene's envs. Geoms of one material change alike, others with their body's."""

    def __init__(self, model: mujoco.MjModel, device: torch.device) -> None:
        """Args: the scene; where the numbers are needed."""
        look_alike = np.where(model.geom_matid >= 0, model.geom_matid, model.nmat + model.geom_bodyid)
        surfaces, index = np.unique(look_alike, return_inverse=True)
        self._cameras, self._surfaces = int(model.ncam), len(surfaces)
        self._surface = torch.as_tensor(index, device=device)  # (geoms,)

    def draw(self, ranges: AppearanceRanges, seeds: Tensor) -> Appearance:
        """An appearance for each of the seeds, int64 (n,); equal seeds look the same in any env."""

        def around_zero(count: int, stream: int, strength: float) -> Tensor:
            return (strength * (2 * uniform(seeds, count, stream) - 1)).float()

        cameras = (len(seeds), self._cameras, 3)
        light = 1 + around_zero(2, _LIGHT, ranges.light) - ranges.dim
        tint = 1 + around_zero(3 * self._surfaces, _COLOUR, ranges.colour).view(len(seeds), -1, 3)
        return Appearance(
            shift=around_zero(cameras[1] * 3, _SHIFT, ranges.shift).view(cameras),
            turn=rotations(around_zero(cameras[1] * 3, _TURN, ranges.turn).view(cameras)),
            headlight=light[:, 0],
            lamps=light[:, 1],
            tint=tint[:, self._surface],
        )


def rotations(vectors: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) of rotation vectors (..., 3), radians, by Rodrigues' formula."""
    angle = vectors.norm(dim=-1)[..., None, None]
    x, y, z = vectors.unbind(-1)
    o = torch.zeros_like(x)
    cross = torch.stack([o, -z, y, z, o, -x, -y, x, o], dim=-1).view(*vectors.shape, 3)
    # sin(t) / t and (1 - cos(t)) / t^2, finite at t = 0.
    first, second = torch.sinc(angle / torch.pi), 0.5 * torch.sinc(angle / (2 * torch.pi)) ** 2
    turned: Tensor = torch.eye(3, device=vectors.device) + first * cross + second * cross @ cross
    return turned


def own_colours(model: mujoco.MjModel) -> NDArray[np.float32]:
    """The colour of each geom, (geoms, 4), with that of its material written out.

    Alpha stays below 1, so that no change of the colour gives the one that means the material's.
    """
    own: NDArray[Any] = model.geom_rgba
    by_material = (model.geom_matid >= 0) & (own == _BY_MATERIAL).all(axis=1)
    colours = own.astype(np.float32)
    colours[by_material] = model.mat_rgba[model.geom_matid[by_material]]
    colours[:, 3] = np.minimum(colours[:, 3], 0.99)  # the ray tracer asks only whether it is 0
    return colours
