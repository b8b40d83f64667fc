"""What every encoder shares: normalising images, stacking cameras, projecting, joining proprioception."""

from __future__ import annotations

import math
from collections.abc import Callable

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


class PixelEncoder(Encoder):
    """A convolutional body on the cameras' images, stacked into channels, joined by the proprioception."""

    def __init__(
        self,
        spec: ObsSpec,
        body: Callable[[int], nn.Module],
        *,
        pool: nn.Module | None = None,
        latent: int | None,
        proprio: int | None,
    ) -> None:
        """Builds the encoder.

        Args:
            spec: the observations it will get.
            body: makes the network from the number of input channels; maps (b, c, h, w) to a smaller map.
            pool: reduces the last map to (b, f); None flattens it.
            latent: length of the image features after Linear, LayerNorm, tanh; None keeps what `pool` gives.
            proprio: length of the proprioception's features after the same; None leaves proprioception out.

        Raises:
            CaliperError: there is no camera, the image is too small for the body, or a length is negative.
        """
        super().__init__()
        if not spec.cameras:
            raise CaliperError(
                "it needs images but the observations have no camera; name one (task.cameras)."
            )
        for name, length in (("latent", latent), ("proprio", proprio)):
            if length is not None and length < 0:
                raise CaliperError(f"{name}={length} makes no sense; it must be at least 1, or null.")
        channels = 3 * len(spec.cameras)
        self.body = body(channels)
        self.pool = pool or nn.Flatten()
        with torch.no_grad():
            flat = self.pool(self._last_map(channels, spec.size)).shape[1]
        proprio = proprio if spec.proprio else None
        self.project = Projection(flat, latent) if latent else nn.Identity()
        self.project_proprio = Projection(spec.proprio, proprio) if proprio else None
        self.dim = (latent or flat) + (proprio or 0)

    def forward(self, obs: Obs) -> Tensor:
        """See `Encoder.forward`; pixels that are not `scaled` yet will be."""
        images = rearrange(scaled(obs.pixels), "b v c h w -> b (v c) h w")
        features: Tensor = self.project(self.pool(self.body(images)))
        if self.project_proprio is None:
            return features
        return torch.cat([features, self.project_proprio(obs.proprio)], -1)

    def _last_map(self, channels: int, size: int) -> Tensor:
        """The body's output (1, c, h, w) for an image of `size` pixels; refuses one that is too small."""
        out = self._probe(channels, size)
        if out is None:
            larger = (s for s in range(size + 1, 1025) if self._probe(channels, s) is not None)
            if (smallest := next(larger, None)) is None:
                raise CaliperError(
                    "no image up to 1024x1024 pixels fits it; change its channels, kernels, strides, padding."
                )
            raise CaliperError(
                f"images of {size}x{size} pixels are too small for it; the smallest that works is "
                f"{smallest}x{smallest} (set task.size, or choose another encoder)."
            )
        return out

    def _probe(self, channels: int, size: int) -> Tensor | None:
        """The body's output, or None where too little of the image is left."""
        try:
            with torch.no_grad():
                out: Tensor = self.body(torch.zeros(1, channels, size, size))
        except (RuntimeError, ValueError):  # torch: the kernel is larger than its input
            return None
        return out if min(out.shape[2:]) >= SMALLEST_MAP else None


class State(Encoder):
    """Proprioception alone, unchanged: for checks against published numbers and for tests."""

    def __init__(self, spec: ObsSpec) -> None:
        super().__init__()
        self.dim = spec.proprio

    def forward(self, obs: Obs) -> Tensor:
        """Returns the proprioception (b, p)."""
        return obs.proprio


def initialise(module: nn.Module) -> None:
    """Orthogonal weights (gain sqrt 2 before a ReLU) and zero biases, as in DrQ."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.orthogonal_(layer.weight, math.sqrt(2))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
