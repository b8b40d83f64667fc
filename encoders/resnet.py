"""ResNet-18 (He et al. 2016) with group normalisation and a spatial softmax, trained from scratch."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from caliper.encoders.base import PixelEncoder
from caliper.types import ObsSpec


class SpatialSoftmax(nn.Module):
    """Expected image position of learned key points (Finn et al. 2016, arXiv:1509.06113)."""

    def __init__(self, channels: int, keypoints: int) -> None:
        super().__init__()
        self.maps = nn.Conv2d(channels, keypoints, 1)
        self.log_temperature = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (b, c, h, w) to (b, 2 keypoints): all rows, then all columns, in [-1, 1]."""
        h, w = x.shape[2:]
        scores = rearrange(self.maps(x), "b k h w -> b k (h w)") * self.log_temperature.exp()
        weight = rearrange(torch.softmax(scores, -1), "b k (h w) -> b k h w", h=h)
        rows = weight.sum(3) @ torch.linspace(-1.0, 1.0, h, device=x.device, dtype=weight.dtype)
        columns = weight.sum(2) @ torch.linspace(-1.0, 1.0, w, device=x.device, dtype=weight.dtype)
        return torch.cat([rows, columns], 1)


class ResNet18(PixelEncoder):
    """torchvision's ResNet-18 body; batch normalisation would mix the states of a batch, groups do not."""

    def __init__(
        self,
        spec: ObsSpec,
        *,
        keypoints: int = 64,
        max_pool: bool = False,
        latent: int | None = 50,
        proprio: int | None = 50,
        cameras: str = "stacked",
    ) -> None:
        """Builds the body; without the stem's `max_pool` the last map is 4x4 at 64 pixels instead of 2x2.

        Raises:
            CaliperError: the image is too small.
        """
        from torchvision.models import resnet18  # a second to import, and only this encoder needs it

        def body(inputs: int) -> nn.Module:
            net = resnet18(weights=None, norm_layer=lambda width: nn.GroupNorm(width // 16, width))
            stem = nn.Conv2d(inputs, 64, 7, stride=2, padding=3, bias=False)
            pool = net.maxpool if max_pool else nn.Identity()
            return nn.Sequential(
                stem, net.bn1, nn.ReLU(inplace=True), pool, net.layer1, net.layer2, net.layer3, net.layer4
            )

        def pool() -> nn.Module:
            return SpatialSoftmax(512, keypoints)

        super().__init__(spec, body, pool=pool, latent=latent, proprio=proprio, cameras=cameras)
