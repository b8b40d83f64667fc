"""Networks whose weights come from a file, and which architectures a file fits."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from caliper.encoders.architectures import ALIASES, headless, torchvision_names, without_memory
from caliper.encoders.weights import RANDOM, Origin, mismatches, named_as, origin, read_weights, unreadable
from caliper.errors import CaliperError

AT_ONCE = 64  # images that a network without gradients sees
POSITIONS = ("pos_embed", "encoder.pos_embedding")  # of timm and torchvision


@dataclass(frozen=True, slots=True)
class Checked:
    """A file of weights that fits an architecture."""

    arch: str
    path: str
    sha256: str
    origin: Origin

    def __str__(self) -> str:
        return (
            f"encoder: {self.arch} with the weights of {self.path}\n"
            f"  SHA-256 {self.sha256}\n"
            f"  source  {self.origin.source}\n"
            f"  licence {self.origin.licence}"
        )


class Backbone(nn.Module):
    """A pretrained network: images to f numbers each.

    It never leaves evaluation mode: statistics of batch normalisation stay those of the file, and nothing
    is dropped, whether its weights learn or not.

    Attributes:
        dim: f.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, arch: str, size: int | None = 224) -> None:
        """Builds the network with random weights, the same every time.

        Args:
            arch: a name of torchvision, of timm, or of `ALIASES`.
            size: side that images are brought to, pixels; None leaves them as they are.

        Raises:
            CaliperError: the name is not known, timm is missing, or the network does not take the size.
        """
        super().__init__()
        self.arch, self.size = arch, size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            found = headless(arch, size)
        self.net, self.dim = found.net, found.dim
        self.register_buffer("mean", torch.tensor(found.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(found.std)[:, None, None], persistent=False)
        self.eval()

    def train(self, mode: bool = True) -> Backbone:
        """Stays in evaluation mode."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Maps images (m, 3, h, w) in [-0.5, 0.5], see `caliper.encoders.augment.scaled`, to (m, f)."""
        if self.size is not None and images.shape[2:] != (self.size, self.size):
            smaller = min(images.shape[2:]) > self.size
            images = F.interpolate(images, (self.size, self.size), mode="bilinear", antialias=smaller)
        features: Tensor = self.net((images + 0.5 - self.mean) / self.std)
        return features.float()

    def load(self, path: Path | str, sha256: str | None = None) -> Checked:
        """Takes the weights of a file.

        Args:
            path: the file, of safetensors or torch.
            sha256: what it must be, if it is known.

        Raises:
            CaliperError: it cannot be read, is another file, or of another architecture.
        """
        found = digest(path)
        if sha256 is not None and sha256 != found:
            raise CaliperError(
                f"{path} is another file (SHA-256 {found[:16]}...) than this run began with ({sha256}); say "
                "where that one is with encoder.weights=FILE"
            )
        given, kind = read_weights(Path(path))
        fitted = self._fitted(given)
        if wrong := mismatches(self.net.state_dict(), fitted):
            more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
            raise CaliperError(f"{path} does not fit arch={self.arch}: {'; '.join(wrong[:3])}{more}")
        own = self.net.state_dict()
        self.net.load_state_dict({name: fitted.get(name, own[name]) for name in own})
        return Checked(self.arch, str(path), found, origin(kind, self.arch, found))

    def freeze(self) -> Backbone:
        """Makes its weights buffers: no optimiser, gradient or moving average ever sees them."""
        for module in self.net.modules():
            for name, weight in list(module.named_parameters(recurse=False)):
                delattr(module, name)
                module.register_buffer(name, weight.detach())
        return self

    def _fitted(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights under this network's names, position embeddings brought to its number of patches."""
        own = self.net.state_dict()
        fitted = named_as(given, own)
        for name in POSITIONS:
            if name in fitted and name in own and fitted[name].dim() == own[name].dim() == 3:
                fitted[name] = _resampled(fitted[name], own[name].shape[1])
        return fitted


def of_images(backbone: Backbone, images: Tensor, most: int = AT_ONCE) -> Tensor:
    """Features of all frames of all cameras: (b, v, k 3, h, w) as `scaled` gives them to (b, v, k f).

    At most so many images at once where no gradient is wanted: at 224 pixels each takes megabytes.
    """
    b, v = images.shape[:2]
    flat = rearrange(images, "b v (k c) h w -> (b v k) c h w", c=3)
    parts = [flat] if torch.is_grad_enabled() else torch.split(flat, most)
    return rearrange(torch.cat([backbone(part) for part in parts]), "(b v k) f -> b v (k f)", b=b, v=v)


def digest(path: Path | str) -> str:
    """SHA-256 of a file of weights.

    Raises:
        CaliperError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(path, error.strerror) from error


def _resampled(embedding: Tensor, length: int) -> Tensor:
    """Position embeddings (1, p + m, f) of a square of m patches, for another square; p others stay in front.

    Class and register tokens are so few that only one way to see a square remains.
    """
    given = embedding.shape[1]
    others = next((p for p in range(6) if _square(given - p) and _square(length - p)), None)
    if given == length or others is None:
        return embedding
    old, new = (round((n - others) ** 0.5) for n in (given, length))
    grid = rearrange(embedding[:, others:].float(), "1 (h w) f -> 1 f h w", h=old)
    grid = F.interpolate(grid, (new, new), mode="bicubic", antialias=True)
    patches = rearrange(grid, "1 f h w -> 1 (h w) f").to(embedding.dtype)
    return torch.cat([embedding[:, :others], patches], 1)


def _square(n: int) -> bool:
    return n > 0 and round(n**0.5) ** 2 == n


def fitting(path: Path | str) -> list[str]:
    """The architectures of torchvision, and of `ALIASES` where timm is installed, that a file's weights fit.

    Raises:
        CaliperError: the file cannot be read.
    """
    given, found = read_weights(Path(path))[0], []
    for arch in [*torchvision_names(), *(ALIASES if find_spec("timm") else ())]:
        own = without_memory(arch, 224).net.state_dict()
        # Other numbers of patches are no other architecture, see `Backbone.load`.
        wrong = [line for line in mismatches(own, named_as(given, own)) if not line.startswith(POSITIONS)]
        if not wrong:
            found.append(arch)
    return found


def check_file(path: Path | str, arch: str) -> Checked:
    """Whether a file of weights fits an architecture.

    Raises:
        CaliperError: it does not; names the first three weights that differ.
    """
    return Backbone(arch).load(path)


def make_backbone(arch: str, weights: str | None, sha256: str | None, size: int | None) -> Backbone:
    """The network with a file's weights, or with random ones where `weights` is "random".

    Raises:
        CaliperError: no file is named, random ones stand where a run began with a file, or see `Backbone`.
    """
    if weights == RANDOM and sha256 is not None:
        raise CaliperError(
            f"encoder.weights={RANDOM}, but this run began with a file (SHA-256 {sha256}); say where that is "
            "with encoder.weights=FILE"
        )
    if weights is None:
        raise CaliperError(
            "encoder.weights names no file; say encoder.weights=FILE (Caliper downloads none: see "
            "caliper pretrained), or encoder.weights=random for a control without pre-training"
        )
    backbone = Backbone(arch, size)
    if weights != RANDOM:
        backbone.load(weights, sha256)
    return backbone
