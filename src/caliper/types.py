"""The few types that every part of Caliper shares: tensors with names.

Shapes are written in one vocabulary: b batch, n envs, e ensemble, k sampled actions, t time, v views
(cameras), c h w image, a action, p proprioception, f features, s simulator state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Plane:
    """Images of one kind and one size, from some of the cameras.

    Attributes:
        kind: pixels, depth, segmentation or features.
        cameras: which of `ObsSpec.cameras`.
        channels: of one frame.
        size: height and width, pixels.
        dtype: of a number.
    """

    kind: str
    cameras: tuple[int, ...]
    channels: int
    size: tuple[int, int]
    dtype: torch.dtype

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of one frame, (v, c, h, w)."""
        return (len(self.cameras), self.channels, *self.size)


KINDS = {"pixels": (3, torch.uint8), "depth": (1, torch.float16), "segmentation": (1, torch.uint8)}


@dataclass(frozen=True, slots=True)
class ObsSpec:
    """What one observation holds.

    Attributes:
        cameras: their names, in order.
        size: side of their square images, pixels; or height and width of each camera's.
        proprio: length of the proprioception vector of one frame.
        depth: whether each camera gives depth too.
        instances: how many instances a segmentation tells apart, besides what is none; 0 gives none.
        stack: consecutive frames that an observation holds, the oldest first.
        features: numbers that a frozen encoder has made of each camera's frame; 0 leaves the images. They
            stand as one more plane, float32 (v, f, 1, 1), and the pixels are of no view.
    """

    cameras: tuple[str, ...]
    size: int | tuple[tuple[int, int], ...]
    proprio: int
    depth: bool = False
    instances: int = 0
    stack: int = 1
    features: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) and len(sides := {s for size in self.size for s in size}) == 1:
            object.__setattr__(self, "size", sides.pop())  # so that equal specs are equal

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Height and width of each camera's images, pixels."""
        return ((self.size, self.size),) * len(self.cameras) if isinstance(self.size, int) else self.size

    @property
    def single(self) -> ObsSpec:
        """The same with one frame."""
        return replace(self, stack=1)

    @property
    def planes(self) -> dict[str, Plane]:
        """The images by name, cameras of one size together: those of the first under the kind's name.

        Further sizes have names such as depth_96x128. Without cameras there are pixels of no view.
        """
        kinds = ["pixels"] + ["depth"] * self.depth + ["segmentation"] * (self.instances > 0)
        if not self.cameras:
            assert isinstance(self.size, int)
            return {"pixels": Plane("pixels", (), 3, (self.size, self.size), torch.uint8)}
        if self.features:
            seen = tuple(range(len(self.cameras)))
            features = Plane("features", seen, self.features, (1, 1), torch.float32)
            return {"pixels": Plane("pixels", (), 3, (1, 1), torch.uint8), "features": features}
        found = {}
        for i, size in enumerate(dict.fromkeys(self.sizes)):
            seen = tuple(j for j, own in enumerate(self.sizes) if own == size)
            for kind in kinds:
                name = kind if i == 0 else f"{kind}_{size[0]}x{size[1]}"
                found[name] = Plane(kind, seen, KINDS[kind][0], size, KINDS[kind][1])
        return found

    @property
    def image_bytes(self) -> int:
        """Bytes of one frame's images."""
        shapes = [(plane.shape, plane.dtype.itemsize) for plane in self.planes.values()]
        return sum(v * c * h * w * width for (v, c, h, w), width in shapes)

    @property
    def image_numbers(self) -> int:
        """Numbers in an observation's images as an encoder sees them, one channel for each instance."""
        channels = {"pixels": 3, "depth": 1, "segmentation": self.instances, "features": self.features}
        seen = [(channels[plane.kind], plane.shape) for plane in self.planes.values()]
        return self.stack * sum(v * c * h * w for c, (v, _, h, w) in seen)


@dataclass(frozen=True, slots=True)
class Obs:
    """A batch of observations. Of k frames, the oldest first, a stack has k times the channels and numbers.

    Attributes:
        pixels: uint8 (n, v, 3, h, w), RGB, origin at the top left; of the cameras of the first size.
        proprio: float32 (n, p), see the task for the entries and their units.
        more: further images by their names in `ObsSpec.planes`: pixels of other sizes; depth, float16
            (n, v, 1, h, w), metres along the camera's axis, 0 where nothing is; segmentation, uint8
            (n, v, 1, h, w), the number of the instance, 0 where there is none; or features, float32
            (n, v, f, 1, 1), instead of all images.
    """

    pixels: Tensor
    proprio: Tensor
    more: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def images(self) -> dict[str, Tensor]:
        """All images by their names in `ObsSpec.planes`."""
        return {"pixels": self.pixels, **self.more}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The images, and `proprio`."""
        return {**self.images, "proprio": self.proprio}

    @staticmethod
    def of(tensors: Mapping[str, Tensor]) -> Obs:
        """From what `tensors` gives."""
        more = {name: t for name, t in tensors.items() if name not in ("pixels", "proprio")}
        return Obs(tensors["pixels"], tensors["proprio"], more)

    def map(self, change: Callable[[Tensor], Tensor]) -> Obs:
        """The same change of every tensor."""
        more = {name: change(tensor) for name, tensor in self.more.items()}
        return Obs(change(self.pixels), change(self.proprio), more)

    def newest(self, stack: int) -> Obs:
        """The last frame of each of `stack`."""
        if stack == 1:
            return self

        def last(tensor: Tensor) -> Tensor:
            axis = 2 if tensor.dim() == 5 else 1
            length = tensor.shape[axis] // stack
            return tensor.narrow(axis, tensor.shape[axis] - length, length)

        return self.map(last)

    def __len__(self) -> int:
        return self.pixels.shape[0]

    def __getitem__(self, index: Any) -> Obs:
        return self.map(lambda tensor: tensor[index])

    def to(self, device: torch.device | str) -> Obs:
        """The same observations on another device."""
        return self.map(lambda tensor: tensor.to(device))

    @staticmethod
    def cat(parts: Sequence[Obs]) -> Obs:
        """Concatenates along the batch axis."""
        found = [part.tensors for part in parts]
        return Obs.of({name: torch.cat([tensors[name] for tensors in found]) for name in found[0]})


@dataclass(frozen=True, slots=True)
class Step:
    """What a vectorised environment returns for one control step of n envs (same-step autoreset).

    Attributes:
        obs: the observation to act on next; of the new episode where one has just ended.
        reward: float32 (n,), raw; sparse: 1 on the step that first meets the task's success, else 0. Only
            some environments of Gymnasium have another.
        terminated: bool (n,), the episode ended in success (a true terminal state: no bootstrap).
        truncated: bool (n,), the episode ran into the horizon (bootstrap from `final_obs`).
        final_obs: the observation the action led to, before any reset. Equals `obs` where nothing ended.
        success: bool (n,), the task's success test on the state the action led to.
        diverged: bool (n,), the physics blew up: the episode is `truncated`, its end is no observation to
            learn from, and it belongs into no buffer and no dataset.
    """

    obs: Obs
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    final_obs: Obs
    success: Tensor
    diverged: Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """Transitions for one update.

    Attributes:
        obs: observations at which the actions were taken (b).
        action: float32 (b, a) in [-1, 1].
        reward: float32 (b,), after scale and bias.
        next_obs: observations that followed (b).
        terminal: float32 (b,), 1 where the next state is terminal (a time-out is not).
        mc_return: float32 (b,), discounted return of the recorded episode from this transition on; minus
            infinity where the recorded rewards don't tell it.
    """

    obs: Obs
    action: Tensor
    reward: Tensor
    next_obs: Obs
    terminal: Tensor
    mc_return: Tensor

    def __len__(self) -> int:
        return self.action.shape[0]

    @staticmethod
    def cat(parts: Sequence[Batch]) -> Batch:
        """Concatenates along the batch axis."""
        return Batch(
            Obs.cat([p.obs for p in parts]),
            torch.cat([p.action for p in parts]),
            torch.cat([p.reward for p in parts]),
            Obs.cat([p.next_obs for p in parts]),
            torch.cat([p.terminal for p in parts]),
            torch.cat([p.mc_return for p in parts]),
        )
