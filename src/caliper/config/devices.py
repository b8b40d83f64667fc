"""Where the parts of a run are: its learner, and the engine of its envs."""

from __future__ import annotations

import re

import torch

from caliper.config.schema import RunConfig
from caliper.errors import CaliperError


def learner_device(config: RunConfig) -> str:
    """Of networks, buffers and batches: 'cpu', 'cuda', or a GPU with its number."""
    if config.device != "auto":
        return config.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def memory_of(device: str) -> str:
    """Whose memory a device has: 'cpu', or a GPU with its number; 'cuda' alone is the first one."""
    return "cuda:0" if device == "cuda" else device


def engine_device(config: RunConfig) -> str:
    """Of physics and images; Warp's GPU is the learner's, or the first if the learner has none."""
    outside = config.task.env_id is not None or config.task.env is not None
    if outside or config.sim.name != "warp" or config.sim.device == "cpu":
        return "cpu"
    learner = learner_device(config)
    return learner if learner.startswith("cuda") else "cuda"


def check_learner_device(config: RunConfig) -> None:
    """Refuses a learner's device that is not there, and what a learner cannot do on its device.

    Raises:
        CaliperError: naming the key and the fix.
    """
    match = re.fullmatch(r"auto|cpu|cuda(?::(\d+))?", config.device)
    if match is None:
        raise CaliperError(f"device={config.device} is unknown; choose auto, cpu, cuda, or a GPU as cuda:1")
    device = learner_device(config)
    if device.startswith("cuda"):
        if not torch.cuda.is_available():
            raise CaliperError(
                f"device={config.device}, but torch sees no GPU; use device=auto, and ask caliper doctor"
            )
        count = torch.cuda.device_count()
        if match[1] and int(match[1]) >= count:
            gpus = f"{count} GPU{'s' * (count > 1)}"
            raise CaliperError(f"device={config.device}, but torch sees {gpus}; they count from cuda:0")
    elif config.learner == "graph":
        said = f"device={config.device}" + (", and torch sees no GPU" if config.device == "auto" else "")
        raise CaliperError(f"learner=graph needs a GPU for the learner, but {said}; use learner=eager")


def check_engine_device(config: RunConfig) -> None:
    """Refuses an engine for a GPU where there is none.

    Raises:
        CaliperError: naming the key and the fix.
    """
    if engine_device(config).startswith("cuda") and not torch.cuda.is_available():
        raise CaliperError("sim=warp, but torch sees no GPU; use sim=batch, or sim.device=cpu")
