"""An encoder whose weights come from a file: frozen under a small trained head, or fine-tuned.

What a frozen network makes of a frame is always the same. So a run computes it once, when the frame comes
in, and keeps it instead of the image (`ObsSpec.features`): an update then costs the head alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from caliper.encoders.architectures import without_memory
from caliper.encoders.augment import scaled
from caliper.encoders.backbones import Backbone, make_backbone, of_images
from caliper.encoders.base import Encoder
from caliper.encoders.fuse import Projection
from caliper.encoders.weights import RANDOM
from caliper.errors import CaliperError
from caliper.types import Obs, ObsSpec

NAME = "pretrained"


class Pretrained(Encoder):
    """A network of torchvision or timm on each camera's colours, then Linear, LayerNorm, tanh.

    It sees the cameras, and the frames of a stack, one after the other; their features are joined.
    """

    def __init__(
        self,
        spec: ObsSpec,
        *,
        arch: str = "resnet18",
        weights: str | None = None,
        sha256: str | None = None,
        frozen: bool = True,
        cached: bool = True,
        size: int | None = 224,
        latent: int | None = 50,
        proprio: int | None = 50,
    ) -> None:
        """Builds the head, and the network unless the observations hold its features already.

        Args:
            spec: the observations it will get.
            arch: of the network, see `caliper pretrained`.
            weights: file of safetensors or torch; "random" is a control without pre-training.
            sha256: what the file must be; a run notes it.
            frozen: whether the network stays as it is.
            cached: whether a run keeps the features of a frozen network instead of the images.
            size: side that images are brought to, pixels; None leaves them as they are.
            latent: length of the image features after Linear, LayerNorm, tanh; None keeps the network's.
            proprio: length of the proprioception's features after the same; None leaves it out.

        Raises:
            CaliperError: there is no camera, or depth or a segmentation, which no such network has seen; the
                file will not do; or a length is negative.
        """
        super().__init__()
        if not spec.cameras:
            raise CaliperError(
                "it needs images but the observations have no camera; name one (task.cameras)."
            )
        if spec.depth or spec.instances:
            raise CaliperError("it was trained on colours alone; leave out task.depth and task.segmentation.")
        for name, length in (("latent", latent), ("proprio", proprio)):
            if length is not None and length < 0:
                raise CaliperError(f"{name}={length} makes no sense; it must be at least 1, or null.")
        self._planes = spec.planes
        self.frozen: Backbone | None = None
        self.body: Backbone | None = None
        if spec.features:
            length = spec.features
        else:
            backbone = make_backbone(arch, weights, sha256, size)
            length = backbone.dim
            if frozen:
                self.frozen = backbone.freeze()
            else:
                self.body = backbone
        seen = length * spec.stack * len(spec.cameras)
        self.project = Projection(seen, latent) if latent else torch.nn.Identity()
        told = spec.proprio * spec.stack
        proprio = proprio if told else None
        self.project_proprio = Projection(told, proprio) if proprio else None
        self.dim = (latent or seen) + (proprio or 0)

    def forward(self, obs: Obs) -> Tensor:
        """See `Encoder.forward`."""
        features: Tensor = self.project(self._features(obs))
        if self.project_proprio is None:
            return features
        return torch.cat([features, self.project_proprio(obs.proprio)], -1)

    def _features(self, obs: Obs) -> Tensor:
        """The network's features (b, v k f), kept or made now."""
        if "features" in obs.more:
            return obs.more["features"].flatten(1)
        if self.body is not None:
            return see(self.body, obs, self._planes).flatten(1)
        assert self.frozen is not None  # for the type checker
        with torch.no_grad():
            return see(self.frozen, obs, self._planes).flatten(1)


def see(backbone: Backbone, obs: Obs, planes: Mapping[str, Any]) -> Tensor:
    """Features (b, v, k f) of the images of b observations, cameras in the order of the `ObsSpec`."""
    found: dict[int, Tensor] = {}
    for name, plane in planes.items():
        features = of_images(backbone, scaled(obs.images[name], name))
        found |= dict(zip(plane.cameras, features.unbind(1), strict=True))
    return torch.stack([found[camera] for camera in sorted(found)], 1)


def keeps_features(cfg: Mapping[str, Any]) -> bool:
    """Whether a run with this encoder keeps features instead of images."""
    return cfg.get("name") == NAME and bool(cfg.get("frozen", True) and cfg.get("cached", True))


def length_of(cfg: Mapping[str, Any]) -> int:
    """Numbers that a run keeps of each camera's frame, see `keeps_features`."""
    return without_memory(cfg.get("arch", "resnet18"), cfg.get("size", 224)).dim


def as_saved(cfg: Mapping[str, Any]) -> Mapping[str, Any]:
    """An encoder's options without its file, if checkpoints hold its weights: not if features are kept."""
    if cfg.get("name") != NAME or keeps_features(cfg):
        return cfg
    return {**cfg, "weights": RANDOM, "sha256": None}


def frozen_backbone(cfg: Mapping[str, Any], device: torch.device | str) -> Backbone:
    """The frozen network of an encoder's options, on a device; one for all who ask for the same."""
    parts = (cfg.get("arch", "resnet18"), cfg.get("weights"), cfg.get("sha256"), cfg.get("size", 224))
    return _frozen(*parts, torch.device(device))


@lru_cache(maxsize=1)
def _frozen(
    arch: str, weights: str | None, sha256: str | None, size: int | None, device: torch.device
) -> Backbone:
    return make_backbone(arch, weights, sha256, size).freeze().to(device)
