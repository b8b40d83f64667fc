"""What a run will take of the memory, told before any of it is taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import torch

from caliper.config.build import action_length, learner_spec, obs_spec
from caliper.config.devices import learner_device, memory_of
from caliper.config.schema import RunConfig
from caliper.data.buffer import ReplayBuffer
from caliper.encoders import build_encoder
from caliper.encoders.architectures import footprint
from caliper.encoders.backbones import AT_ONCE
from caliper.encoders.pretrained import NAME as PRETRAINED
from caliper.encoders.pretrained import keeps_features
from caliper.encoders.weights import RANDOM
from caliper.errors import CaliperError
from caliper.utils.memory import free_memory, in_words

FLOAT = 4  # bytes
ENV = 512 << 10  # bytes of an env's physics; measured: 180 to 400 KiB
# An update keeps so many times what a batch's images take as floats, and what the sampled actions' values do.
IMAGE_COPIES, VALUE_COPIES = 8, 4
# Keys of agents that sample actions, and how many values each of the samples takes.
SAMPLES = {
    "n_actions": 3, "n_target_actions": 1, "n_target_actions_online": 1, "best_of": 1, "cem_samples": 1
}  # fmt: skip
LAYERS = 3  # that are there at once, of a network without gradients
ADAM = 4  # a weight, its gradient and two moments


@dataclass(frozen=True, slots=True)
class Part:
    """What something takes.

    Attributes:
        name: in words.
        size: bytes.
        key: the configuration's key that it grows with, and value, what that is.
        learner: whether it is where the learner is, else where the program is.
        disk: whether it is on the disk instead, and takes no memory.
    """

    name: str
    size: int
    key: str
    value: int
    learner: bool = True
    disk: bool = False


def settled(config: RunConfig, recorded_frames: int | None = None) -> RunConfig:
    """The configuration with `data.storage=auto` decided: the fastest storage that recorded frames fit.

    First the learner's device; then, of a learner there that makes one operation after the other, the
    memory; then, of images, the disk. Where none does, the last, which will be refused.
    """
    if config.data.storage != "auto":
        return config
    choices = ["device"]
    if config.learner == "eager":
        choices += ["memory"] * (learner_device(config) != "cpu") + ["disk"] * _sees_recorded_images(config)
    ways = [replace(config, data=replace(config.data, storage=choice)) for choice in choices]
    return next((way for way in ways if _fits(way, recorded_frames)), ways[-1])


def _sees_recorded_images(config: RunConfig) -> bool:
    return config.task.env_id is None and config.task.obs == "pixels"


def check_storage(config: RunConfig) -> None:
    """Refuses a storage that the run cannot draw from.

    Raises:
        CaliperError: naming the key and the fix.
    """
    storage, elsewhere = config.data.storage, ("memory", "disk")
    if storage == "disk" and not _sees_recorded_images(config):
        raise CaliperError("data.storage=disk is for images, and this policy sees none; leave it out")
    if storage in elsewhere and config.learner == "graph":
        raise CaliperError(
            f"data.storage={storage}, but a CUDA graph draws on the GPU alone; say learner=eager, or "
            "data.storage=device"
        )


def _fits(config: RunConfig, recorded_frames: int | None) -> bool:
    try:
        refuse_too_large(config, recorded_frames)
    except CaliperError:
        return False
    return True


def estimate(config: RunConfig, recorded_frames: int | None = None) -> list[Part]:
    """The large parts of a run's memory, in bytes; within a factor of two of what is measured.

    Args:
        config: of the run.
        recorded_frames: of its datasets; by default as many as the largest that it would collect.
    """
    spec, actions, agent = learner_spec(config), action_length(config), config.agent
    data, online, evaluation = config.data, config.online, config.evaluation
    pixels = spec.image_numbers  # of an observation
    frames = recorded_frames or data.episodes * (config.recorded_horizon + 1)
    envs = online.num_envs + evaluation.num_envs

    def buffer(capacity: int) -> int:
        return ReplayBuffer.estimate(capacity, spec, actions, config.chunk)

    def widths(key: str) -> list[int]:
        given = agent.get(key)  # of another type, it is refused by name elsewhere
        return [w for w in given if isinstance(w, int)] if isinstance(given, list | tuple) else []

    def number(key: str, absent: int) -> int:
        given = agent.get(key, absent)
        return given if isinstance(given, int) else absent

    storage, copied = data.storage, frames * data.copies
    on_disk, on_device = storage == "disk", storage in ("auto", "device")
    recorded = Part("the dataset's images", buffer(copied), "data.copies", data.copies)
    apart = []
    if not on_device:
        size = ReplayBuffer.frame_bytes(copied, spec)
        apart = [Part("the dataset's actions", recorded.size - size, "data.copies", data.copies)]
        # Memory is the learner's where that is on the CPU.
        recorded = replace(recorded, size=size, learner=learner_device(config) == "cpu", disk=on_disk)

    critics, (weights, features) = number("n_critics", 2), _encoder(config)
    encoders = 1 + (critics if agent.get("encoder_per_critic") else 1)
    layers = {
        key: sum(a * b for a, b in pairwise([features + actions, *widths(key)]))
        for key in ("actor_hidden", "critic_hidden")
    }
    # Each part of an agent has a copy of a frozen network, and so has its target.
    frozen, kept = _pretrained(config, 2 * encoders)
    # Values that an update takes of an observation: one after another, so the most of them count.
    samples = {key: count * number(key, 0) for key, count in SAMPLES.items()}
    most = max(samples, key=lambda key: samples[key])
    values = (1 + samples[most]) * critics * (sum(widths("critic_hidden")) or actions) * FLOAT * VALUE_COPIES
    film = min(config.video.episodes, 1) * config.video.size**2 * 3 * config.task.horizon
    parts = [
        recorded,
        Part("the online buffer", buffer(online.capacity), "online.capacity", online.capacity),
        Part(
            "an update",
            config.batch_size * (2 * pixels * FLOAT * IMAGE_COPIES + kept + values),
            "batch_size",
            config.batch_size,
        ),
        Part(
            "the envs",
            envs * (ENV + 4 * obs_spec(config).image_bytes * spec.stack),
            "online.num_envs",
            online.num_envs,
            False,
        ),
        Part(
            "episodes in progress",
            online.num_envs * buffer(config.task.horizon + 1),
            "online.num_envs",
            online.num_envs,
        ),
        Part(
            "the critics",
            (1 + ADAM) * critics * layers["critic_hidden"] * FLOAT,
            "agent.critic_hidden",
            max(widths("critic_hidden"), default=0),
        ),
        Part(
            "the actor",
            (1 + ADAM) * layers["actor_hidden"] * FLOAT,
            "agent.actor_hidden",
            max(widths("actor_hidden"), default=0),
        ),
        Part(
            "the encoders",
            (1 + ADAM) * encoders * weights * FLOAT,
            "encoder.latent",
            config.encoder.get("latent") or features,
        ),
        Part("the frozen network", frozen, "encoder.size", config.encoder.get("size") or 0),
        Part("the envs that collect", data.num_envs * ENV, "data.num_envs", data.num_envs, False),
        Part("the video", 2 * film * config.video.episodes, "video.episodes", config.video.episodes, False),
    ]
    if values * config.batch_size > parts[2].size / 2 and critics > max(100, samples[most]):
        parts[2] = Part("an update of all critics", parts[2].size, "agent.n_critics", critics)
    elif values * config.batch_size > parts[2].size / 2 and samples[most] > 300:
        parts[2] = Part("an update's sampled actions", parts[2].size, f"agent.{most}", number(most, 0))
    if evaluation.num_envs > online.num_envs:
        parts[3] = Part("the envs", parts[3].size, "evaluation.num_envs", evaluation.num_envs, False)
    return parts + apart


def _encoder(config: RunConfig) -> tuple[int, int]:
    """Weights and features of the run's encoder, made without their memory; 0 if it cannot be made at all."""
    try:
        with torch.device("meta"):
            # Whatever a file holds, the shapes are the architecture's.
            random = {"weights": RANDOM, "sha256": None} if "weights" in config.encoder else {}
            encoder = build_encoder({**config.encoder, **random}, learner_spec(config))
    except (CaliperError, TypeError, ValueError, RuntimeError):  # refused by name elsewhere
        return 0, 0
    return sum(weight.numel() for weight in encoder.parameters()), encoder.dim


def _pretrained(config: RunConfig, copies: int) -> tuple[int, int]:
    """Bytes of a network from a file: if frozen, all; else what an update keeps of each observation."""
    cfg, spec = config.encoder, obs_spec(config)
    if cfg["name"] != PRETRAINED or not spec.cameras:
        return 0, 0
    try:
        found = footprint(cfg["arch"], cfg["size"] or max(max(size) for size in spec.sizes))
    except (CaliperError, TypeError, ValueError, RuntimeError):  # refused by name elsewhere
        return 0, 0
    if not cfg["frozen"]:
        return 0, spec.stack * len(spec.cameras) * found.activations * FLOAT
    copies = 1 if keeps_features(cfg) else copies
    return (copies * found.weights + LAYERS * AT_ONCE * found.largest) * FLOAT, 0


def refuse_too_large(config: RunConfig, recorded_frames: int | None = None) -> str:
    """Holds the estimate to what is free here, or to what the learner's GPU has.

    Returns:
        The estimate in one line.

    Raises:
        CaliperError: it does not fit; names the largest part, its key, and the value that would fit.
    """
    config = settled(config, recorded_frames)
    found, device = estimate(config, recorded_frames), learner_device(config)
    parts = [part for part in found if not part.disk]
    stored = "".join(f"; {in_words(part.size)} of recorded frames on disk" for part in found if part.disk)
    free = f"{in_words(free_memory())} free"
    if device == "cpu":
        _refuse(parts, free_memory(), "are free")
        return f"memory: about {_shown(parts)} of {free}{stored}"
    there, here = ([part for part in parts if part.learner is on] for on in (True, False))
    room = torch.cuda.get_device_properties(device).total_memory
    _refuse(there, room, f"is what {device} has")
    _refuse(here, free_memory(), "are free")
    told = f"memory: about {_shown(there)} of {in_words(room)} on {device}; {_shown(here)} of {free} here"
    return told + stored


def refuse_too_many_runs(configs: Sequence[RunConfig], at_once: int, key: str) -> None:
    """The same for runs side by side: the largest that may meet must fit together.

    Args:
        configs: of the runs.
        at_once: how many of them run at a time.
        key: of that number, for the message.

    Raises:
        CaliperError: they do not fit; names how many would.
    """
    taken: dict[str, list[int]] = {}  # by device, what each run takes of it
    for config in configs:
        device = memory_of(learner_device(config))
        parts = [part for part in estimate(settled(config)) if not part.disk]
        for place in {"cpu", device}:
            sizes = [part.size for part in parts if (device if part.learner else "cpu") == place]
            taken.setdefault(place, []).append(sum(sizes))
    for device, sizes in taken.items():
        room = free_memory() if device == "cpu" else torch.cuda.get_device_properties(device).total_memory
        largest = sorted(sizes, reverse=True)[:at_once]
        fits = sum(total <= room for total in accumulate(largest))
        if fits < len(largest):
            what = "are free" if device == "cpu" else f"is what {device} has"
            advice = f"give {key}={fits}" if fits else "make them smaller"
            raise CaliperError(
                f"{len(largest)} runs at once would take about {in_words(sum(largest))} of memory, and "
                f"{in_words(room)} {what}; {advice}"
            )


def refuse_too_many_envs(config: RunConfig) -> None:
    """The same for what collecting a dataset takes."""
    _refuse([part for part in estimate(config) if part.key == "data.num_envs"], free_memory(), "are free")


def _shown(parts: list[Part]) -> str:
    total = sum(part.size for part in parts)
    shown = [f"{part.name} {in_words(part.size)}" for part in parts if part.size > total / 50]
    return f"{in_words(total)} ({', '.join(shown)})"


def _refuse(parts: list[Part], free: int, what: str) -> None:
    total = sum(part.size for part in parts)
    if total <= free:
        return
    largest = max(parts, key=lambda part: part.size)
    grows = sum(part.size for part in parts if part.key == largest.key)
    fits = int(largest.value * max(free - (total - grows), 0) / grows)
    advice = f"at most {fits} would fit" if fits else "the rest alone leaves no room for it"
    if largest.name == "the dataset's images":
        advice += "; data.storage=disk takes no memory for them"
    raise CaliperError(
        f"this would take about {in_words(total)} of memory, and {in_words(free)} {what}: {largest.name} "
        f"alone {in_words(largest.size)} with {largest.key}={largest.value}; {advice}"
    )
