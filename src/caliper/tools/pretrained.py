"""`caliper pretrained`: which architectures there are and what is published for them; whether a file fits."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from caliper.encoders.architectures import ALIASES, torchvision_names
from caliper.encoders.backbones import check_file, fitting
from caliper.encoders.weights import KINDS, published
from caliper.errors import CaliperError


def describe_known() -> str:
    """Architectures by name and the weights published for them; nothing is fetched."""
    lines = ["encoder=pretrained encoder.arch=NAME encoder.weights=FILE; Caliper downloads nothing.", ""]
    lines += ["Of torchvision, with the files that it knows:"]
    for arch in torchvision_names():
        lines += [f"  {arch:18} {Path(url).name:38} {licence}" for _, url, licence in published(arch)]
    lines += ["", "Of R3M (the files that its load_r3m fetches, model.pt): resnet18 resnet34 resnet50"]
    lines += [f"  {KINDS['r3m'].licence}"]
    there = "installed" if find_spec("timm") else "not installed: pip install 'caliper-rl[timm]'"
    lines += ["", f"Of timm ({there}), any of its names, and these for short:"]
    lines += [f"  {name:18} {of_timm}" for name, of_timm in ALIASES.items()]
    lines += ["  dinov2_* take the files of DINOv2's own repository (dinov2_vits14_pretrain.pth, ...):"]
    lines += [f"  {KINDS['dinov2'].licence}. Licences of timm's other weights: see each model's page."]
    return "\n".join(lines)


def describe_file(words: list[str]) -> str:
    """What a file of weights is, and which architecture it fits.

    Args:
        words: the file, and perhaps arch=NAME; without, all of torchvision's and the short names are tried.

    Raises:
        CaliperError: it cannot be read, or fits none; names the first three weights that differ.
    """
    paths = [word for word in words if not word.startswith(("arch=", "encoder.arch="))]
    named = [word.partition("=")[2] for word in words if word not in paths]
    if len(paths) != 1 or len(named) > 1:
        raise CaliperError("name one file of weights: caliper pretrained FILE [arch=NAME]")
    path = paths[0]
    if named:
        return str(check_file(path, named[0]))
    found = fitting(path)
    if not found:
        raise CaliperError(
            f"{path} fits no architecture that is tried by itself; say which it is: caliper pretrained "
            f"{path} arch=NAME"
        )
    text = str(check_file(path, found[0]))
    return text + (f"\nfits as well: {', '.join(found[1:])}" if len(found) > 1 else "")
