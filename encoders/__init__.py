"""Encoders by name: `build_encoder({"name": "conv", ...}, spec)`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from caliper.encoders.augment import augment, random_shift
from caliper.encoders.base import Encoder, State, normalizers
from caliper.encoders.conv import Conv
from caliper.encoders.impala import Impala
from caliper.encoders.pretrained import Pretrained
from caliper.encoders.resnet import ResNet18
from caliper.errors import CaliperError, one_of
from caliper.limits import check_types
from caliper.types import ObsSpec

ENCODERS: dict[str, Callable[..., Encoder]] = {
    "conv": Conv,
    "conv_tiny": partial(Conv, channels=(8, 8), kernels=(3, 3), strides=(2, 2), latent=16, proprio=8),
    "d4pg": partial(Conv, channels=(32, 64, 128, 256), kernels=(3, 3, 3, 3), strides=(2, 2, 2, 2), padding=0),
    "nature": partial(Conv, channels=(32, 64, 64), kernels=(8, 4, 3), strides=(4, 2, 1), padding=0),
    "impala": Impala,
    "pretrained": Pretrained,
    "resnet18": ResNet18,
    "state": State,
}


def build_encoder(cfg: Mapping[str, Any], spec: ObsSpec) -> Encoder:
    """Makes the encoder that `cfg["name"]` names; the other keys are its keyword arguments.

    Args:
        cfg: name and options, see `configs/encoder/*.yaml`.
        spec: cameras, image size and proprioception of the observations.

    Raises:
        CaliperError: unknown name or option, a value of another type, or images too small for the network.
    """
    options = {key: value for key, value in cfg.items() if key != "name"}
    name = cfg.get("name")
    if name not in ENCODERS:
        raise CaliperError(f"encoder.name={name} is unknown; {one_of(sorted(ENCODERS), name)}")
    make = ENCODERS[name]
    known = [key for key in inspect.signature(make).parameters if key != "spec"]
    for key in options:
        if key not in known:
            raise CaliperError(
                f"The encoder {name} has no option {key!r}; it knows {', '.join(known) or 'none'}."
            )
    check_types("encoder", options, make)
    try:
        return make(spec, **options)
    except CaliperError as error:
        raise CaliperError(f"The encoder {name} cannot be built: {error}") from None


__all__ = ["ENCODERS", "Encoder", "State", "augment", "build_encoder", "normalizers", "random_shift"]
