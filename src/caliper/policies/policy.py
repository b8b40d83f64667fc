"""A trained policy as other programs use it: images and proprioception in, an action out.

Needs torch, and neither simulator nor configuration: this module and all it imports are what a robot's
computer loads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from caliper.agents import Agent, build_agent
from caliper.errors import CaliperError
from caliper.types import Obs, ObsSpec
from caliper.utils.foreign import ForeignFileError, read_json
from caliper.utils.manifest import check_manifest

WEIGHTS, CARD, PROGRAM, ONNX = "weights.safetensors", "policy.json", "policy.pt2", "policy.onnx"
FORMAT = 1  # version of policy.json
LARGEST = 1 << 14  # of a number that a card may give for a network's width, or a count of its parts
FORMATS = {"weights": WEIGHTS, "pt2": PROGRAM, "onnx": ONNX}

Array = NDArray[Any] | Tensor
Network = Callable[[Tensor, Tensor], Tensor]  # pixels (n, v, 3, h, w) and proprio (n, p) to (n, chunk a)


class Policy:
    """The greedy policy of a run.

    Attributes:
        card: what policy.json says: task, cameras, meaning of an action, how often it succeeded, ...
        spec: cameras, their size in pixels, and length of the proprioception.
        action_dim: entries of an action.
        chunk: control steps that one look at the observation decides; the rest of them is executed open loop.
        device: where the network computes.
    """

    def __init__(self, card: Mapping[str, Any], network: Network, device: torch.device | str = "cpu") -> None:
        self.card, self.network, self.device = card, network, torch.device(device)
        seen, action = card["observation"], card["action"]
        cameras = tuple(camera["name"] for camera in seen["cameras"])
        self.spec = ObsSpec(cameras, seen["size"], seen["proprio"]["length"])
        self.action_dim, self.chunk = int(action["length"]), int(action["chunk"])
        self.reset()

    def reset(self) -> None:
        """Forgets what is left of a chunk of actions: a new episode begins."""
        self._left: list[Tensor] = []

    @torch.inference_mode()
    def act(self, images: Array | Mapping[str, Array] | None, proprio: Array) -> Any:
        """The action to take now.

        Args:
            images: uint8 (v, 3, h, w), RGB, origin at the top left, cameras in the order of `spec.cameras`;
                or one (3, h, w) by camera's name; or None where the policy sees none. Of n robots at once,
                each with n in front.
            proprio: float (p,), as the card says; of n robots (n, p).

        Returns:
            float32 (a,) or (n, a) in [-1, 1]: a tensor if `proprio` is one, else a NumPy array.

        Raises:
            CaliperError: images or proprioception of another size, type or order; names what was given and
                what is wanted.
        """
        as_tensor = isinstance(proprio, Tensor)
        numbers = _tensor(proprio, "proprio")
        many = numbers.dim() == 2
        numbers = self._proprio(numbers if many else numbers[None])
        n = len(numbers)
        if not self._left:
            pixels = self._pixels(images, n, many)
            decided = self.network(pixels.to(self.device), numbers.to(self.device))
            self._left = list(decided.view(n, self.chunk, self.action_dim).unbind(1))
        elif len(self._left[0]) != n:
            raise CaliperError(
                f"the chunk under way is for {len(self._left[0])} robots and proprio for {n}; call reset() "
                "first"
            )
        action = self._left.pop(0)
        action = (action if many else action[0]).clone()
        return action if as_tensor else action.cpu().numpy()

    def _proprio(self, given: Tensor) -> Tensor:
        want = self.spec.proprio
        if given.dim() != 2 or given.shape[1] != want:
            raise CaliperError(
                f"proprio of a robot has shape {tuple(given.shape[1:])}; this policy takes ({want},), or "
                f"(n, {want}) of n robots: see observation.proprio in its {CARD}"
            )
        if not given.is_floating_point():
            raise CaliperError(f"proprio is {_dtype(given)}; this policy takes float32")
        if not torch.isfinite(given).all():
            bad = int((~torch.isfinite(given)).any(0).nonzero()[0])
            raise CaliperError(f"proprio holds NaN or infinity in entry {bad}; give a finite number")
        return given.float()

    def _pixels(self, images: Array | Mapping[str, Array] | None, n: int, many: bool) -> Tensor:
        """The images as (n, v, 3, h, w), once they are what the policy takes."""
        cameras, size = self.spec.cameras, self.spec.size
        if not cameras:
            if images is not None:
                raise CaliperError("this policy sees no images; give None for them")
            return torch.zeros(n, 0, 3, size, size, dtype=torch.uint8)
        if images is None:
            raise CaliperError(f"this policy needs images of {', '.join(cameras)}")
        if isinstance(images, Mapping):
            if set(images) != set(cameras):
                raise CaliperError(
                    f"images are of {', '.join(map(str, images)) or 'no camera'}; this policy takes "
                    f"{', '.join(cameras)}"
                )
            parts = {name: _tensor(images[name], f"the image of {name}") for name in cameras}
            for name, part in parts.items():
                self._check_image(part, (), n, many, f"the image of {name}")
            pixels = torch.stack(list(parts.values()), -4)
        else:
            pixels = _tensor(images, "images")
            self._check_image(pixels, (len(cameras),), n, many, "images")
        return pixels if many else pixels[None]

    def _check_image(self, given: Tensor, views: tuple[int, ...], n: int, many: bool, name: str) -> None:
        size, got = self.spec.size, tuple(given.shape)
        want = (*((n,) if many else ()), *views, 3, size, size)
        if got != want:
            raise CaliperError(f"{name}: {self._fault(got, want)}")
        if given.dtype != torch.uint8:
            raise CaliperError(f"{name}: the type is {_dtype(given)}; this policy takes uint8, 0 to 255")

    def _fault(self, got: tuple[int, ...], want: tuple[int, ...]) -> str:
        """What is wrong with a shape, in words."""
        size = self.spec.size
        takes = f"this policy takes {want}"
        if len(got) == len(want) and got[-1] in (1, 3, 4) and got[-3] not in (1, 3, 4):
            return (
                f"shape {got} is height, width, channels (HWC); {takes}, channels first (CHW): "
                "numpy.moveaxis(images, -1, -3)"
            )
        if len(got) != len(want):
            return f"shape {got} has {len(got)} axes; {takes}: cameras, 3, height, width; n in front of many"
        if got[-2:] != want[-2:]:
            return f"{got[-2]}x{got[-1]} pixels; {takes}, images of {size}x{size} pixels: resize them"
        if got[-3] != 3:
            return f"{got[-3]} channels; {takes}, RGB"
        return f"shape {got}; {takes}, cameras {', '.join(self.spec.cameras)}"


class Greedy(nn.Module):
    """The part of an agent that acts greedily, as a network of tensors."""

    def __init__(self, agent: Agent) -> None:
        super().__init__()
        self.agent = agent

    def forward(self, pixels: Tensor, proprio: Tensor) -> Tensor:
        """Uint8 (n, v, 3, h, w) and float32 (n, p) to the chunk of actions (n, chunk a)."""
        return self.agent.act(Obs(pixels, proprio), deterministic=True)


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
    card = read_card(folder, (CARD, FORMATS[format]))
    if format == "weights":
        return Policy(card, Greedy(_with_weights(card, folder, device)), device)
    if format == "onnx":
        return Policy(card, _onnx(folder / ONNX))
    if not trusted:
        raise CaliperError(
            f"{folder / PROGRAM} can run the code of whoever wrote it when torch opens it; if you trust "
            "them, say trusted=True, else take format='weights'"
        )
    return Policy(card, torch.export.load(folder / PROGRAM).module())


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
        names = [camera["name"] for camera in seen["cameras"]]
        counts = [seen["size"], seen["proprio"]["length"], action["length"], action["chunk"]]
        options = [card["agent"], card["encoder"]]
    except (KeyError, TypeError) as error:
        raise ForeignFileError(f"has a {CARD} that lacks {error}") from error
    numbers = [*counts, *_integers(options)]
    right = all(type(name) is str for name in names) and all(type(part) is dict for part in options)
    if not right or not all(type(x) is int and 0 <= x <= LARGEST for x in counts) or min(counts[2:]) < 1:
        raise ForeignFileError(f"has a {CARD} whose observation, action, agent or encoder is no such thing")
    if (
        max(map(abs, numbers), default=0) > LARGEST
        or len(numbers) > 1000
        or len(names) > 64
        or seen["size"] > 1024
    ):
        raise ForeignFileError(f"has a {CARD} that asks for a network of absurd size")


def _integers(value: Any) -> list[int]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [x for entry in value for x in _integers(entry)]
    return [value] if type(value) is int else []


def _with_weights(card: Mapping[str, Any], folder: Path, device: torch.device | str) -> Agent:
    """Caliper's own network, by the names in the card, with the folder's weights."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    seen, action = card["observation"], card["action"]
    spec = ObsSpec(tuple(c["name"] for c in seen["cameras"]), seen["size"], seen["proprio"]["length"])
    try:
        agent = build_agent(card["agent"], card["encoder"], spec, action["length"], "cpu", 0)
    except (CaliperError, TypeError, ValueError, RuntimeError) as error:
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


def keep_acting(agent: Agent) -> None:
    """Drops the networks that a greedy agent doesn't ask, and the optimisers."""
    acting = agent.acting()
    own = [*agent.named_children(), *agent.named_parameters(recurse=False)]
    for name in [name for name, _ in own if name not in acting]:
        delattr(agent, name)
    agent.optimizers.clear()


def load_weights(agent: Agent, weights: Mapping[str, Tensor], name: str) -> None:
    """Loads weights that fit in every name and shape.

    Raises:
        CaliperError: some don't; names the first three.
    """
    own = agent.state_dict()
    wrong = []
    for key in sorted(own.keys() | weights.keys()):
        there, here = (tuple(d[key].shape) if key in d else None for d in (weights, own))
        if there != here:
            wrong.append(f"{key} is {there or 'missing'} there and {here or 'missing'} here")
    if wrong:
        more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise CaliperError(
            f"{name} is of another network than the one that is described: {'; '.join(wrong[:3])}{more}"
        )
    agent.load_state_dict(dict(weights))


def _onnx(path: Path) -> Network:
    """The network as onnxruntime runs it, on one thread, as batches of one like it best."""
    try:
        import onnxruntime
    except ImportError as error:
        raise CaliperError(f"{path} needs onnxruntime; install: pip install 'caliper-rl[onnx]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    takes = {entry.name for entry in session.get_inputs()}

    def network(pixels: Tensor, proprio: Tensor) -> Tensor:
        given: dict[str, NDArray[Any]] = {"pixels": pixels.numpy(), "proprio": proprio.numpy()}
        answer = session.run(None, {name: value for name, value in given.items() if name in takes})
        return torch.from_numpy(np.asarray(answer[0]))

    return network


def _tensor(given: Array, name: str) -> Tensor:
    if isinstance(given, Tensor):
        return given
    if not isinstance(given, np.ndarray):
        raise CaliperError(f"{name}: a {type(given).__name__} was given; give a NumPy array or a tensor")
    if given.dtype.kind not in "fiub":
        raise CaliperError(f"{name}: an array of {given.dtype} was given; give numbers")
    try:
        return torch.from_numpy(np.ascontiguousarray(given))
    except TypeError as error:  # such as uint16
        raise CaliperError(
            f"{name}: torch has no type {given.dtype}; give uint8 images, float32 numbers"
        ) from error


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
