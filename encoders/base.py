"""What every encoder shares: normalising images, stacking cameras, projecting, joining proprioception."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from caliper.encoders.augment import scaled
from caliper.encoders.fuse import Projection
from caliper.errors import CaliperError
from caliper.types import Obs, ObsSpec

SMALLEST_MAP = 2  # with a last map of one cell no place is left in the features


class Encoder(nn.Module):
    """Images (and proprioception) to features.

    Attributes:
        dim: length of the feature vector.
    """

    dim: int

    def forward(self, obs: Obs) -> Tensor:
        """Encodes observations.

        Args:
            obs: b observations.

        Returns:
            float32 (b, f) with f = `dim`.
        """
        raise NotImplementedError


CAMERAS = ("stacked", "shared", "separate")  # how several cameras are seen


class PixelEncoder(Encoder):
    """A convolutional body on the images, joined by the proprioception.

    The channels of a camera are its colours, its depth where there is one, and one for each instance of its
    segmentation; of stacked frames, all of theirs.
    """

    def __init__(
        self,
        spec: ObsSpec,
        body: Callable[[int], nn.Module],
        *,
        pool: Callable[[], nn.Module] = nn.Flatten,
        latent: int | None,
        proprio: int | None,
        cameras: str,
    ) -> None:
        """Builds the encoder.

        Args:
            spec: the observations it will get.
            body: makes the network from the number of input channels; maps (b, c, h, w) to a smaller map.
            pool: makes what reduces the last map to (b, f).
            latent: length of the image features after Linear, LayerNorm, tanh; None keeps what `pool` gives.
            proprio: length of the proprioception's features after the same; None leaves proprioception out.
            cameras: how several are seen: "stacked", all in the channels of one image; "shared", one after
                the other by the same body; "separate", each by a body of its own. The features of the latter
                two are joined, `latent` of each camera.

        Raises:
            CaliperError: there is no camera, an image is too small for the body, the images of stacked or
                shared cameras have several sizes, or a length is negative.
        """
        super().__init__()
        if not spec.cameras:
            raise CaliperError(
                "it needs images but the observations have no camera; name one (task.cameras)."
            )
        for name, length in (("latent", latent), ("proprio", proprio)):
            if length is not None and length < 0:
                raise CaliperError(f"{name}={length} makes no sense; it must be at least 1, or null.")
        if cameras not in CAMERAS:
            raise CaliperError(f"cameras={cameras!r} is not known; choose one of {', '.join(CAMERAS)}.")
        sizes, v = list(dict.fromkeys(spec.sizes)), len(spec.cameras)
        if cameras != "separate" and len(sizes) > 1:
            several = " and ".join(f"{h}x{w}" for h, w in sizes)
            raise CaliperError(
                f"cameras={cameras} needs images of one size, and these have {several} pixels; say "
                "encoder.cameras=separate, or give all cameras one size (task.cameras)."
            )
        self._planes, self._cameras, self._views = spec.planes, cameras, v
        self._instances = spec.instances
        channels = spec.stack * (3 + spec.depth + spec.instances)
        if cameras == "separate":
            eyes = [_Eye(body, pool, channels, size, latent) for size in spec.sizes]
            self.eyes = nn.ModuleList(eyes)
            seen = sum(eye.dim for eye in eyes)
        else:
            together = cameras == "stacked"
            eye = _Eye(body, pool, channels * v if together else channels, sizes[0], latent)
            self.body, self.pool, self.project = eye.body, eye.pool, eye.project
            seen = eye.dim if together else eye.dim * v
        told = spec.proprio * spec.stack
        proprio = proprio if told else None
        self.project_proprio = Projection(told, proprio) if proprio else None
        self.dim = seen + (proprio or 0)

    def forward(self, obs: Obs) -> Tensor:
        """See `Encoder.forward`; pixels that are not `scaled` yet will be."""
        images = {name: self._ready(name, obs.images[name]) for name in self._planes}
        if self._cameras == "stacked":
            parts = [rearrange(planes, "b v c h w -> b (v c) h w") for planes in images.values()]
            features = _features(self, parts[0] if len(parts) == 1 else torch.cat(parts, 1))
        elif self._cameras == "shared":
            each = torch.cat([self._of_camera(images, i) for i in range(self._views)])
            features = rearrange(_features(self, each), "(v b) f -> b (v f)", v=self._views)
        else:
            seen = [eye(self._of_camera(images, i)) for i, eye in enumerate(self.eyes)]
            features = torch.cat(seen, -1)
        if self.project_proprio is None:
            return features
        return torch.cat([features, self.project_proprio(obs.proprio)], -1)

    def _ready(self, name: str, images: Tensor) -> Tensor:
        """Images (b, v, c, h, w) as numbers in [-0.5, 0.5]."""
        if self._planes[name].kind != "segmentation":
            return scaled(images, name)
        numbers = torch.arange(1, self._instances + 1, device=images.device)[:, None, None]
        one_hot = (images[:, :, :, None] == numbers).flatten(2, 3)  # (b, v, k i, h, w)
        kind = images.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
        return one_hot.to(dtype) - 0.5

    def _of_camera(self, images: dict[str, Tensor], camera: int) -> Tensor:
        """What one camera sees, (b, c, h, w)."""
        parts = [
            images[name][:, plane.cameras.index(camera)]
            for name, plane in self._planes.items()
            if camera in plane.cameras
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


class _Eye(nn.Module):
    """A body, what pools its last map, and a projection: images of one size to (b, f)."""

    def __init__(
        self,
        body: Callable[[int], nn.Module],
        pool: Callable[[], nn.Module],
        channels: int,
        size: tuple[int, int],
        latent: int | None,
    ) -> None:
        super().__init__()
        self.pool = pool()
        self.body = body(channels)
        with torch.no_grad():
            flat = self.pool(self._last_map(channels, size)).shape[1]
        self.project = Projection(flat, latent) if latent else nn.Identity()
        self.dim = latent or flat

    def forward(self, images: Tensor) -> Tensor:
        """Maps (b, c, h, w) to (b, f)."""
        return _features(self, images)

    def _last_map(self, channels: int, size: tuple[int, int]) -> Tensor:
        """The body's output (1, c, h, w) for an image of `size`; refuses one that is too small."""
        out = self._probe(channels, size)
        if out is None:
            larger = (s for s in range(min(size) + 1, 1025) if self._probe(channels, (s, s)) is not None)
            if (smallest := next(larger, None)) is None:
                raise CaliperError(
                    "no image up to 1024x1024 pixels fits it; change its channels, kernels, strides, padding."
                )
            raise CaliperError(
                f"images of {size[0]}x{size[1]} pixels are too small for it; the smallest that works is "
                f"{smallest}x{smallest} (set task.size, or choose another encoder)."
            )
        return out

    def _probe(self, channels: int, size: tuple[int, int]) -> Tensor | None:
        """The body's output, or None where too little of the image is left."""
        try:
            with torch.no_grad():
                out: Tensor = self.body(torch.zeros(1, channels, *size))
        except (RuntimeError, ValueError):  # torch: the kernel is larger than its input
            return None
        return out if min(out.shape[2:]) >= SMALLEST_MAP else None


def _features(eye: Any, images: Tensor) -> Tensor:
    """Maps (b, c, h, w) to (b, f) by the three parts of an eye."""
    features: Tensor = eye.project(eye.pool(eye.body(images)))
    return features


class State(Encoder):
    """Proprioception alone, unchanged or normalised as TD3+BC's paper has it (arXiv:2106.06860, section 5).

    That is: less the mean of the recorded frames, divided by their standard deviation plus 0.001. What comes
    in online is normalised by the same numbers.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, spec: ObsSpec, *, normalize: bool = False) -> None:
        super().__init__()
        self.dim = spec.proprio * spec.stack
        self.normalize = normalize
        if normalize:
            self.register_buffer("mean", torch.zeros(self.dim))
            self.register_buffer("spread", torch.ones(self.dim))

    def fit(self, frames: Tensor) -> None:
        """Takes the moments of recorded frames (m, p); of a stack, each frame has the same."""
        stack = self.dim // frames.shape[1]
        self.mean.copy_(frames.mean(0).repeat(stack))
        self.spread.copy_((frames.std(0, correction=0) + 1e-3).repeat(stack))

    def forward(self, obs: Obs) -> Tensor:
        """Returns the proprioception (b, p)."""
        return (obs.proprio - self.mean) / self.spread if self.normalize else obs.proprio


def normalizers(network: nn.Module) -> list[State]:
    """The encoders in a network that wait for the moments of recorded frames: of an agent, its copies too."""
    return [part for part in network.modules() if isinstance(part, State) and part.normalize]


def initialise(module: nn.Module) -> None:
    """Orthogonal weights (gain sqrt 2 before a ReLU) and zero biases, as in DrQ."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.orthogonal_(layer.weight, math.sqrt(2))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
