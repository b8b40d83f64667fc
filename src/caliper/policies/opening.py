"""Opens the folder that `caliper export` wrote.

Needs torch, and neither simulator nor configuration: this module and all it imports are what a robot's
computer loads. Nothing in the folder runs its author's code, unless the user trusts it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from caliper.agents import Agent, build_agent
from caliper.errors import CaliperError
from caliper.policies.greedy import Greedy, keep_acting, load_weights
from caliper.policies.policy import CARD, Network, Policy, spec_of
from caliper.utils.foreign import ForeignFileError, read_json
from caliper.utils.manifest import check_manifest

WEIGHTS, PROGRAM, ONNX = "weights.safetensors", "policy.pt2", "policy.onnx"
FORMAT = 1  # version of policy.json
FORMATS = {"weights": WEIGHTS, "pt2": PROGRAM, "onnx": ONNX}
LARGEST = 1 << 14  # of a number that a card may give for a network's width, or a count of its parts
MOST_NAMES, MOST_NUMBERS = 300, 1 << 26  # of cameras and instances; and in the images of an observation
LARGEST_SIDE = 1 << 10  # of an image, pixels
MOST_WEIGHTS = 1 << 29  # numbers in all networks of an agent; ten critics with a resnet18 each have 2e8


def open_policy(
    folder: Path, format: str = "weights", trusted: bool = False, device: torch.device | str = "cpu"
) -> Policy:
    """A policy from the folder that `caliper export` wrote.

    Args:
        folder: of the policy.
        format: "weights" (safetensors, into Caliper's own network), "onnx" or "pt2".
        trusted: whether "pt2" may be opened. What is in that file can run any code: torch unpickles parts of
            it and evaluates expressions in it. The others hold numbers and a graph of known operations.
        device: where the network computes, of "weights".

    Raises:
        CaliperError: a part is missing, changed or of another network; or the format is not there, or not
            trusted.
    """
    if format not in FORMATS:
        raise CaliperError(f"format={format!r} is unknown; choose one of {', '.join(FORMATS)}")
    card, path = read_card(folder, (CARD, FORMATS[format])), folder / FORMATS[format]
    planes = tuple(spec_of(card).planes)
    if format == "weights":
        agent = _with_weights(card, folder, device, trusted)
        policy = Policy(card, Greedy(agent, planes), device)
    elif format == "onnx":
        policy = Policy(card, _onnx(path, (*planes, "proprio")))
    elif trusted:
        policy = Policy(card, _program(path))
    else:
        raise CaliperError(
            f"{path} can run the code of whoever wrote it when torch opens it; if you trust them, say "
            "trusted=True, else take format='weights'"
        )
    try:
        policy.prove()
    except CaliperError as error:
        raise CaliperError(f"{path} is not the policy of its {CARD}: {error}; export it again") from error
    return policy


def read_card(folder: Path, needed: tuple[str, ...] = (CARD,)) -> dict[str, Any]:
    """What policy.json says, checked as far as a network is built from it.

    Args:
        folder: of the policy.
        needed: files that must be there, and be those that were written.

    Raises:
        CaliperError: it is no policy's folder, or lacks or changed a part.
    """
    if not (folder / CARD).exists():
        raise CaliperError(
            f"{folder} is not a policy's folder: it holds no {CARD}; caliper export RUN OUT writes one"
        )
    try:
        check_manifest(folder, needed)
        card = read_json(folder / CARD)
        _check_card(card)
    except ForeignFileError as error:
        raise CaliperError(f"the policy's folder {folder} {error}; export it again") from error
    return card


def _check_card(card: dict[str, Any]) -> None:
    """Raises ForeignFileError where a card lacks what a policy is built from, or asks for too much."""
    if card.get("format") != FORMAT:
        raise ForeignFileError(
            f"has a {CARD} of format {card.get('format')!r:.20}; this Caliper reads {FORMAT}"
        )
    try:
        seen, action = card["observation"], card["action"]
        names = [camera["name"] for camera in seen["cameras"]] + list(seen["instances"])
        sides = [camera[side] for camera in seen["cameras"] for side in ("height", "width")]
        counts = [seen["proprio"]["length"], action["length"], action["chunk"], seen["frames"], *sides]
        options, depth = [card["agent"], card["encoder"]], seen["depth"]
    except (KeyError, TypeError) as error:
        raise ForeignFileError(f"has a {CARD} that lacks {error}") from error
    numbers = [*counts, *_integers(options)]
    right = all(type(name) is str for name in names) and all(type(part) is dict for part in options)
    whole = all(type(x) is int and x >= 0 for x in counts) and min(counts[1:], default=1) > 0
    if not right or type(depth) is not bool or not whole:
        raise ForeignFileError(f"has a {CARD} whose observation, action, agent or encoder is no such thing")
    large = max(map(abs, numbers), default=0) > LARGEST or len(numbers) > 1000 or len(names) > MOST_NAMES
    large = large or max(sides, default=0) > LARGEST_SIDE
    if large or len({*names}) < len(names) or spec_of(card).image_numbers > MOST_NUMBERS:
        raise ForeignFileError(f"has a {CARD} that asks for a network of absurd size")


def _integers(value: Any) -> list[int]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):  # not deep: see `read_json`
        return [x for entry in value for x in _integers(entry)]
    return [value] if type(value) is int else []


def _with_weights(card: Mapping[str, Any], folder: Path, device: torch.device | str, trusted: bool) -> Agent:
    """Caliper's own network, by the names in the card, with the folder's weights."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from caliper.parts import exported

    exported(card.get("parts", {}), folder, trusted)
    described = card["agent"], card["encoder"], spec_of(card), card["action"]["length"]
    try:
        with torch.device("meta"):  # without memory: a few words may ask for terabytes
            wanted = build_agent(*described, "meta", 0).state_dict().values()
        if (count := sum(weight.numel() for weight in wanted)) > MOST_WEIGHTS:
            raise ValueError(f"one of {count:.2g} weights, where {MOST_WEIGHTS:.2g} are the most")
        agent = build_agent(*described, "cpu", 0)
    except Exception as error:  # torch raises whatever the card's values lead it to
        first = (str(error) or repr(error)).splitlines()[0]
        raise CaliperError(f"{folder / CARD} describes no network that there is: {first}") from error
    keep_acting(agent)
    try:
        weights = load_file(folder / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise CaliperError(
            f"{folder / WEIGHTS} is damaged ({str(error).splitlines()[0]}); export it again"
        ) from error
    load_weights(agent, weights, f"{folder / WEIGHTS}")
    return agent.to(device).eval().requires_grad_(False)


def _program(path: Path) -> Network:
    """The network that torch.export has written, whose author the user trusts."""
    try:
        network: Network = torch.export.load(path).module()
    except Exception as error:  # torch raises whatever the bytes lead it to
        first = (str(error).strip() or repr(error)).splitlines()[0]
        raise CaliperError(f"{path} is damaged ({first}); export it again") from error
    return network


def _onnx(path: Path, names: tuple[str, ...]) -> Network:
    """The network as onnxruntime runs it, on one thread, as batches of one like it best.

    Args:
        path: of the file.
        names: of what the network is given; what it does not look at may be missing in the file.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise CaliperError(f"{path} needs onnxruntime; install: pip install 'caliper-rl[onnx]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], enable_fallback=False
        )  # else it prints what it makes of a damaged file, and tries again
        takes = {entry.name for entry in session.get_inputs()}
    except Exception as error:  # onnxruntime has an error of its own for each state
        first = (str(error).strip() or repr(error)).splitlines()[0]
        raise CaliperError(f"{path} is damaged ({first}); export it again") from error

    def network(*seen: Tensor) -> Tensor:
        given = {name: tensor.numpy() for name, tensor in zip(names, seen, strict=True)}
        answer = session.run(None, {name: value for name, value in given.items() if name in takes})
        return torch.from_numpy(np.asarray(answer[0]))

    return network
