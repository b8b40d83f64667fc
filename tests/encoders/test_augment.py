"""Random shift against its definition: pad by replication, then crop."""

import torch
from torch.nn import functional as F

from caliper.encoders import random_shift


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
