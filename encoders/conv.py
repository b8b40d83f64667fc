"""Plain stacks of convolutions: `conv`, `conv_tiny`, `d4pg` and `nature` differ in numbers only."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from caliper.encoders.base import PixelEncoder, initialise
from caliper.errors import CaliperError
from caliper.types import ObsSpec


class Conv(PixelEncoder):
    """Convolutions with ReLU, one after the other.

    The defaults are `conv`: three halvings and one layer at the last size, cheap on a CPU at 64x64 pixels.
    """

    def __init__(
        self,
        spec: ObsSpec,
        *,
        channels: Sequence[int] = (16, 32, 32, 32),
        kernels: Sequence[int] = (3, 3, 3, 3),
        strides: Sequence[int] = (2, 2, 2, 1),
        padding: int = 1,
        latent: int | None = 50,
        proprio: int | None = 50,
        cameras: str = "stacked",
    ) -> None:
        """Builds the stack; `channels`, `kernels` and `strides` have one entry per layer.

        Raises:
            CaliperError: the three lists differ in length, or the image is too small.
        """
        if not len(channels) == len(kernels) == len(strides):
            raise CaliperError(
                f"channels, kernels and strides need one entry per layer each, but have {len(channels)}, "
                f"{len(kernels)} and {len(strides)}."
            )

        def body(inputs: int) -> nn.Module:
            layers: list[nn.Module] = []
            for width, kernel, stride in zip(channels, kernels, strides, strict=True):
                layers += [nn.Conv2d(inputs, width, kernel, stride, padding), nn.ReLU(inplace=True)]
                inputs = width
            return nn.Sequential(*layers)

        super().__init__(spec, body, latent=latent, proprio=proprio, cameras=cameras)
        initialise(self)
