"""Files of published weights: read without running code, renamed, compared, and where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from caliper.errors import CaliperError

RANDOM = "random"  # instead of a file: the control without pre-training
INSIDE = ("r3m", "state_dict", "model_state_dict", "model", "teacher")  # where a checkpoint keeps its weights
PREFIXES = ("module.convnet.", "convnet.", "module.", "backbone.", "model.")
# Layers behind the features, and DINOv2's token for masked patches: left out where the network has none.
BEHIND = ("fc.", "head.", "heads.", "classifier.", "mask_token", "lang_enc.", "lang_rew.")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where weights come from, as far as the file tells."""

    source: str
    licence: str


KINDS = {
    "r3m": Origin(
        "R3M (facebookresearch/r3m), by the names in the file", "MIT, that of its code; see its repository"
    ),
    "dinov2": Origin("DINOv2 (facebookresearch/dinov2), by the names in the file", "Apache-2.0"),
}
UNKNOWN = Origin("not known by its checksum or its names", "unknown: ask whoever published the file")


def read_weights(path: Path) -> tuple[dict[str, Tensor], str | None]:
    """The tensors in a file of safetensors or torch, on the CPU, and the kind that its names betray.

    Raises:
        CaliperError: there is no such file, it holds no weights, or would run code to be read.
    """
    if not path.is_file():
        raise unreadable(path, "no such file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise CaliperError(
            f"{path} is no file of plain weights: to read it would run code of whoever wrote it; save its "
            "state_dict() alone, as safetensors"
        ) from error
    except Exception as error:  # both libraries pass on whatever a damaged file leads them to
        raise CaliperError(f"{path} is damaged, or no file of weights ({_first_line(error)})") from error
    r3m = isinstance(content, dict) and "r3m" in content
    for name in INSIDE:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, dict) else {}
    if not tensors:
        raise CaliperError(f"{path} holds no weights by name; save the network's state_dict()")
    broken = [k for k, v in tensors.items() if v.is_floating_point() and not torch.isfinite(v).all()]
    if broken:
        raise CaliperError(f"{path} holds NaN or infinity in {broken[0]}; fetch the file again")
    dinov2 = "mask_token" in tensors and any(name.endswith("ls1.gamma") for name in tensors)
    return tensors, "r3m" if r3m else "dinov2" if dinov2 else None


def unreadable(path: Path | str, why: object) -> CaliperError:
    """What is said of a file of weights that is not there."""
    return CaliperError(
        f"encoder.weights: {path} cannot be read ({why}); Caliper downloads no weights: fetch the file "
        "yourself and name it"
    )


def named_as(given: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A file's weights under a network's names, without what lies behind its features."""
    found = dict(given)
    for prefix in PREFIXES:
        # R3M's language model and DINO's head stand beside the network, under other names.
        if any(name.startswith(prefix) for name in found):
            found = {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)}
    if "register_tokens" in found and "reg_token" in own:
        found["reg_token"] = found.pop("register_tokens")
        # timm adds the class token's position to the token itself.
        if {"cls_token", "pos_embed"} <= found.keys():
            position = found["pos_embed"]
            found["cls_token"] = found["cls_token"] + position[:, :1]
            found["pos_embed"] = position[:, 1:]
    return {name: value for name, value in found.items() if name in own or not name.startswith(BEHIND)}


def mismatches(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """Each name that one of them lacks or has in another shape, in words, in the network's order."""
    wrong = []
    for name in [*own, *(name for name in given if name not in own)]:
        if name.endswith("num_batches_tracked"):  # a counter that nothing reads, and old files lack
            continue
        here, there = (tuple(d[name].shape) if name in d else None for d in (own, given))
        if here != there:
            wrong.append(f"{name} is {_shown(there)} in the file and {_shown(here)} in the architecture")
    return wrong


def origin(kind: str | None, arch: str, sha256: str) -> Origin:
    """Where weights come from: torchvision's by their checksum, others by the names in the file."""
    if kind is not None:
        return KINDS[kind]
    for name, url, licence in published(arch):
        # The name of torchvision's file ends in the first eight digits of its SHA-256.
        if Path(url).stem.rpartition("-")[2] == sha256[:8]:
            return Origin(f"torchvision {name}, by its checksum", licence)
    return UNKNOWN


def published(arch: str) -> list[tuple[str, str, str]]:
    """Name, address and licence of the weights that torchvision knows for an architecture of its own."""
    from torchvision.models import get_model_weights

    try:
        weights = list(get_model_weights(arch))
    except ValueError:
        return []
    usual = "BSD-3-Clause, that of torchvision; the images trained on have terms of their own"
    return [(str(entry), entry.url, entry.meta.get("license", usual)) for entry in weights]


def _shown(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else str(shape)


def _first_line(error: Exception) -> str:
    return (str(error) or repr(error)).splitlines()[0][:200]
