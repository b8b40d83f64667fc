"""Random shift against its definition, pad by replication, then crop; and scaling by hand."""

import pytest
import torch
from torch.nn import functional as F

from caliper.encoders import augment, build_encoder, random_shift
from caliper.encoders.augment import scaled
from caliper.types import Obs, ObsSpec


def test_equals_padding_and_cropping():
    g = torch.Generator().manual_seed(0)
    pad, pixels = 4, torch.randint(0, 256, (16, 2, 3, 12, 10), dtype=torch.uint8, generator=g)
    offsets = torch.randint(-pad, pad + 1, (16, 2), generator=g)
    shifted = random_shift(pixels, offsets)
    padded = F.pad(pixels.flatten(1, 2).float(), (pad,) * 4, mode="replicate").to(torch.uint8)
    for i, (row, col) in enumerate((offsets + pad).tolist()):
        assert torch.equal(shifted[i].flatten(0, 1), padded[i, :, row : row + 12, col : col + 10])
    assert shifted.dtype == torch.uint8 and shifted.shape == pixels.shape


def test_no_offset_is_the_identity():
    pixels = torch.randint(0, 256, (2, 1, 3, 5, 5), dtype=torch.uint8)
    assert torch.equal(random_shift(pixels, torch.zeros(2, 2, dtype=torch.int64)), pixels)


def test_images_are_scaled_channels_last_in_the_precision_of_autocast():
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 3, 1, 1).expand(2, 2, 3, 4, 4)
    images = scaled(pixels)
    assert images.shape == pixels.shape and images.dtype == torch.float32
    assert images[1, 1, :, 2, 3].tolist() == pytest.approx([-0.5, -0.3, 0.5], abs=1e-7)
    assert images.flatten(1, 2).is_contiguous(memory_format=torch.channels_last)
    assert images.flatten(1, 2).data_ptr() == images.data_ptr()  # a view: encoders copy nothing
    assert scaled(images) is images
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(scaled(pixels), images.to(torch.bfloat16))


@pytest.mark.parametrize("pad", [0, 4])
def test_an_encoder_sees_the_same_in_images_scaled_before(pad):
    spec, g = ObsSpec(("front", "side"), 32, 3), torch.Generator().manual_seed(0)
    encoder = build_encoder({"name": "conv"}, spec)
    obs = Obs(torch.randint(0, 256, (5, 2, 3, 32, 32), dtype=torch.uint8, generator=g), torch.randn(5, 3))
    offsets = torch.randint(-pad, pad + 1, (5, 2), generator=g)
    shifted = Obs(random_shift(obs.pixels, offsets), obs.proprio)
    for half in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            ready = augment(obs, pad, g, offsets)
            before = ready.pixels.clone()
            assert torch.equal(encoder(ready), encoder(shifted))
        assert torch.equal(ready.pixels, before)  # whoever comes next finds them as they were
