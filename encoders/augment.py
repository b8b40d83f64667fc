"""Images on their way to the networks: shifted as uint8, then scaled, once for all that look at them."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from caliper.types import Obs


def augment(obs: Obs, pad: int, generator: torch.Generator, offsets: Tensor | None = None) -> Obs:
    """The observations with each sample's images shifted at random and ready for every encoder.

    All images of a sample, of every camera and kind, move by the same number of pixels. See `random_shift`
    and `scaled`.

    Args:
        obs: b observations.
        pad: the most of a shift, in pixels; 0 shifts nothing.
        generator: draws the shifts, on the observations' device.
        offsets: int64 (b, 2) in [-pad, pad]; given, nothing is drawn.
    """
    b, cameras = obs.pixels.shape[:2]
    if not cameras:
        return obs
    if pad and offsets is None:
        offsets = torch.randint(-pad, pad + 1, (b, 2), generator=generator, device=obs.pixels.device)
    ready = {}
    for name, images in obs.images.items():
        shifted = images if offsets is None or not pad else random_shift(images, offsets)
        ready[name] = scaled(shifted, name)
    return Obs.of({**ready, "proprio": obs.proprio})


def random_shift(pixels: Tensor, offsets: Tensor) -> Tensor:
    """Shifts each sample's images by whole pixels, the border repeated (DrQ, arXiv:2004.13649).

    Clamped indexing gives exactly what padding by replication and cropping at `pad + offset` gives, stays
    uint8 and makes no padded copy. All views of a sample move together.

    Args:
        pixels: (b, v, c, h, w), of any type.
        offsets: int64 (b, 2), rows then columns, each in [-pad, pad].

    Returns:
        The same, shifted.
    """
    v, c, h, w = pixels.shape[1:]
    rows = (torch.arange(h, device=pixels.device) + offsets[:, :1]).clamp_(0, h - 1)  # (b, h)
    cols = (torch.arange(w, device=pixels.device) + offsets[:, 1:]).clamp_(0, w - 1)  # (b, w)
    source = rearrange(rows[:, :, None] * w + cols[:, None, :], "b h w -> b 1 (h w)")
    flat = rearrange(pixels, "b v c h w -> b (v c) (h w)")
    return rearrange(flat.gather(2, source.expand(-1, v * c, -1)), "b (v c) (h w) -> b v c h w", v=v, h=h)


def scaled(pixels: Tensor, name: str = "pixels") -> Tensor:
    """Images as convolutions like them best, on CPU and GPU: channels last, and in autocast's precision.

    Args:
        pixels: (b, v, c, h, w) as in `Obs`: uint8 pixels, float16 depth; or what this function gave before,
            which stays as it is, as does a segmentation, whose numbers each encoder makes channels of.
        name: of the images in an observation.

    Returns:
        (b, v, c, h, w) in [-0.5, 0.5]; of a depth d in metres d / (1 + d) - 0.5, fine near the camera and
        the same for all that is far, nothing at all counting as 0 metres.
    """
    if pixels.dtype not in (torch.uint8, torch.float16) or name.startswith("segmentation"):
        return pixels
    images = rearrange(pixels, "b v c h w -> b (v c) h w").to(torch.float32)
    images = images.div_(images + 1) if name.startswith("depth") else images.mul_(1 / 255)
    images = images.sub_(0.5)
    kind = pixels.device.type
    if torch.is_autocast_enabled(kind):
        images = images.to(torch.get_autocast_dtype(kind))
    # Last, for it is much faster than together with a cast.
    images = images.contiguous(memory_format=torch.channels_last)
    return rearrange(images, "b (v c) h w -> b v c h w", v=pixels.shape[1])
