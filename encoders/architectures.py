"""Architectures of torchvision and timm without their last layer, and what they take."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from caliper.errors import CaliperError, one_of

FAMILIES = ("resnet", "resnext", "wide_resnet", "vit_", "convnext", "efficientnet", "mobilenet")
# Short names, and those of DINOv2's own repository, for timm's.
ALIASES = {
    "vit_tiny": "vit_tiny_patch16_224",
    "vit_small": "vit_small_patch16_224",
    "vit_base": "vit_base_patch16_224",
    "dinov2_vits14": "vit_small_patch14_dinov2",
    "dinov2_vitb14": "vit_base_patch14_dinov2",
    "dinov2_vitl14": "vit_large_patch14_dinov2",
    "dinov2_vits14_reg": "vit_small_patch14_reg4_dinov2",
    "dinov2_vitb14_reg": "vit_base_patch14_reg4_dinov2",
    "dinov2_vitl14_reg": "vit_large_patch14_reg4_dinov2",
}


@dataclass(frozen=True, slots=True)
class Headless:
    """A network without its last layer: images to f numbers each.

    Attributes:
        net: the network.
        mean: of each colour, in [0, 1], that was taken off the images it was trained on.
        std: deviation of each colour that they were divided by.
        dim: f.
    """

    net: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]
    dim: int


@dataclass(frozen=True, slots=True)
class Footprint:
    """How many numbers a network takes.

    Attributes:
        weights: its own.
        activations: of all layers, for one image.
        largest: of the largest layer, for one image.
    """

    weights: int
    activations: int
    largest: int


def headless(arch: str, size: int | None) -> Headless:
    """The network, with random weights.

    Args:
        arch: a name of torchvision, of timm, or of `ALIASES`.
        size: side of its images, pixels; None lets them vary.

    Raises:
        CaliperError: the name is not known, timm is missing, or the network does not take the size.
    """
    known = torchvision_names()
    try:
        if arch in known:
            return _of_torchvision(arch, size)
        if arch in ALIASES or _timm_knows(arch):
            return _of_timm(arch, size)
    except (AssertionError, ValueError, RuntimeError) as error:  # what both libraries say of a wrong size
        raise CaliperError(
            f"encoder.arch={arch} does not take encoder.size={size} ({str(error).splitlines()[0]}); try 224"
        ) from error
    raise CaliperError(f"encoder.arch={arch} is unknown; {one_of([*known, *ALIASES], arch)}" + _hint())


def torchvision_names() -> list[str]:
    """Torchvision's architectures that can be encoders."""
    from torchvision import models

    return [name for name in models.list_models(module=models) if name.startswith(FAMILIES)]


@cache
def without_memory(arch: str, size: int | None) -> Headless:
    """The same as `headless`, to ask for names and shapes."""
    with torch.device("meta"):
        found = headless(arch, size)
    found.net.eval()
    return found


@cache
def footprint(arch: str, size: int) -> Footprint:
    """What a network takes with images of a size, found without its memory."""
    net, outputs = without_memory(arch, size).net, []

    def note(_module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            outputs.append(output.numel())

    layers = [module for module in net.modules() if not list(module.children())]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        with torch.no_grad():
            net(torch.empty(1, 3, size, size, device="meta"))
    finally:
        for hook in hooks:
            hook.remove()
    return Footprint(sum(weight.numel() for weight in net.parameters()), sum(outputs), max(outputs))


def _of_torchvision(arch: str, size: int | None) -> Headless:
    from torchvision.models import get_model, get_model_weights

    transformer = arch.startswith("vit_")
    if transformer and size is None:
        raise ValueError("a transformer needs images of one size")
    net = get_model(arch, weights=None, **({"image_size": size} if transformer else {}))
    shown = get_model_weights(arch).DEFAULT.transforms()
    mean, std = tuple(shown.mean), tuple(shown.std)
    name = next(name for name in ("fc", "heads", "classifier") if hasattr(net, name))
    head = getattr(net, name)
    if isinstance(head, nn.Linear):
        setattr(net, name, nn.Identity())
        return Headless(net, mean, std, head.in_features)
    inner, last = list(head.named_children())[-1]
    setattr(head, inner, nn.Identity())
    return Headless(net, mean, std, last.in_features)


def _of_timm(arch: str, size: int | None) -> Headless:
    if find_spec("timm") is None:
        raise CaliperError(f"encoder.arch={arch} is timm's; install: pip install 'caliper-rl[timm]'")
    import timm

    name = ALIASES.get(arch, arch)
    sized: dict[str, Any] = {} if size is None else {"img_size": size}
    try:
        net: Any = timm.create_model(name, pretrained=False, num_classes=0, **sized)
    except TypeError:  # convolutions take images of any size, and no such word
        net = timm.create_model(name, pretrained=False, num_classes=0)
    if size is None and hasattr(net, "pos_embed"):
        raise ValueError("a transformer needs images of one size")
    shown = net.pretrained_cfg
    # `num_features` is of what comes before the pooling, which some follow with one more layer.
    return Headless(net, tuple(shown["mean"]), tuple(shown["std"]), net.head_hidden_size)


def _timm_knows(arch: str) -> bool:
    if find_spec("timm") is None:
        return False
    import timm

    return bool(timm.is_model(arch))


def _hint() -> str:
    return "" if find_spec("timm") else "; and all of timm's: pip install 'caliper-rl[timm]'"
