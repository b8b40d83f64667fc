"""The residual network of IMPALA (Espeholt et al. 2018, arXiv:1802.01561), without its recurrent part."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from caliper.encoders.base import PixelEncoder, initialise
from caliper.types import ObsSpec


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(relu(x)))), at one width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape (b, c, h, w)."""
        out: Tensor = x + self.second(F.relu(self.first(F.relu(x))))
        return out


class Impala(PixelEncoder):
    """Stages of convolution, max-pooling by two and residual blocks."""

    def __init__(
        self,
        spec: ObsSpec,
        *,
        channels: Sequence[int] = (16, 32, 32),
        blocks: int = 2,
        latent: int | None = 50,
        proprio: int | None = 50,
        cameras: str = "stacked",
    ) -> None:
        """Builds one stage per entry of `channels`, each with `blocks` residual blocks.

        Raises:
            CaliperError: the image is too small.
        """

        def body(inputs: int) -> nn.Module:
            layers: list[nn.Module] = []
            for width in channels:
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.MaxPool2d(3, stride=2, padding=1)]
                layers += [ResidualBlock(width) for _ in range(blocks)]
                inputs = width
            return nn.Sequential(*layers, nn.ReLU())

        super().__init__(spec, body, latent=latent, proprio=proprio, cameras=cameras)
        initialise(self)
