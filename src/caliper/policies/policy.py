"""A trained policy as other programs use it: images and proprioception in, an action out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from caliper.errors import CaliperError
from caliper.types import ObsSpec, Plane

CARD = "policy.json"
MOST_BEYOND = 1e-3  # of an action, outside of [-1, 1]: what rounding may be
SUFFIXES = {"pixels": "", "depth": "_depth", "segmentation": "_segmentation"}  # of a camera's name

Array = NDArray[Any] | Tensor
Network = Callable[
    ..., Tensor
]  # the planes of an ObsSpec (n, v, k c, h, w), and proprio (n, k p), to (n, chunk a)


class Policy:
    """The greedy policy of a run.

    Attributes:
        card: what policy.json says: task, cameras, meaning of an action, how often it succeeded, ...
        spec: cameras, their sizes in pixels and kinds of images, and length of the proprioception.
        views: the images by name, in order: `agentview`, and `agentview_depth` and
            `agentview_segmentation` if it sees those.
        action_dim: entries of an action.
        chunk: control steps that one look at the observation decides; the rest of them is executed open loop.
        device: where the network computes.
    """

    def __init__(self, card: Mapping[str, Any], network: Network, device: torch.device | str = "cpu") -> None:
        self.card, self.network, self.device = card, network, torch.device(device)
        self.spec = spec_of(card)
        # A spec without cameras has a plane of no view, which the network is given too.
        self._planes = self.spec.planes
        self.views: dict[str, tuple[str, Plane]] = {}  # the plane of each view, and its name
        for name, plane in self._planes.items():
            for camera in plane.cameras:
                self.views[self.spec.cameras[camera] + SUFFIXES[plane.kind]] = name, plane
        self.action_dim, self.chunk = int(card["action"]["length"]), int(card["action"]["chunk"])
        self.reset()

    def reset(self) -> None:
        """Forgets what was seen, and what is left of a chunk of actions: a new episode begins."""
        self._left: list[Tensor] = []
        self._frames: list[dict[str, Tensor]] = []  # as many as the policy sees at once, the oldest first

    @torch.inference_mode()
    def act(self, images: Array | Mapping[str, Array] | None, proprio: Array) -> Any:
        """The action to take now.

        A policy that sees several frames at once keeps the earlier ones by itself: it is given what is seen
        now at every control step, and told by `reset` where an episode begins.

        Args:
            images: RGB, uint8 (v, 3, h, w), origin at the top left, cameras in the order of `spec.cameras`,
                where all have one size and one kind; or by the names of `views`, RGB (3, h, w), depth float
                (1, h, w) in metres, segmentation uint8 (1, h, w); or by the names of `spec.planes`, as
                `caliper.types.Obs.images`; or None where the policy sees none. Of n robots at once, each with
                n in front.
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
        n, k = len(numbers), self.spec.stack
        if n == 0:
            raise CaliperError("proprio is of no robot; give (p,) of one, or (n, p) of n")
        going = self._left[0] if self._left else self._frames[0]["proprio"] if self._frames else numbers
        if len(going) != n:
            raise CaliperError(
                f"the episode under way is for {len(going)} robots and proprio for {n}; call reset() first"
            )
        if not self._left or k > 1:
            frame = {**self._images(images, n, many), "proprio": numbers.to(self.device)}
            self._frames = [*self._frames, frame][-k:] if self._frames else [frame] * k
        if not self._left:
            axes = dict.fromkeys(self._planes, 2) | {"proprio": 1}
            seen = [torch.cat([f[name] for f in self._frames], axis) for name, axis in axes.items()]
            self._left = list(self._decided(seen, n).unbind(1))
        if k == 1:
            self._frames = []
        action = self._left.pop(0)
        action = (action if many else action[0]).clone()
        return action if as_tensor else action.cpu().numpy()

    def prove(self) -> None:
        """Lets the network act on noise: it may come from a file, and its card from another.

        Raises:
            CaliperError: it fails, or gives something else than the card says; names what.
        """
        seen = [tensor.to(self.device) for tensor in noise(self.spec, 1)]
        try:
            with torch.inference_mode():
                action = self._decided(seen, 1)
        except CaliperError:
            raise
        except Exception as error:  # torch and onnxruntime raise whatever the network leads them to
            first = (str(error).strip() or repr(error)).splitlines()[0]
            raise CaliperError(f"it fails on the observations that its {CARD} describes ({first})") from error
        if (most := float(action.abs().max())) > 1 + MOST_BEYOND:
            raise CaliperError(f"it gives actions of {most:.3g}; they must be in [-1, 1]")

    def _decided(self, seen: Sequence[Tensor], n: int) -> Tensor:
        """Actions (n, chunk, a) for n observations."""
        actions, want = self.network(*seen), (n, self.chunk * self.action_dim)
        if tuple(actions.shape) != want or actions.dtype != torch.float32:
            raise CaliperError(
                f"the network gives actions of {dtype_name(actions)} {tuple(actions.shape)}; its {CARD} says "
                f"float32 {want}"
            )
        if not torch.isfinite(actions).all():
            raise CaliperError(
                "the network gives an action with NaN or infinity: its weights are damaged, or what it sees "
                "is far from all that it was trained on"
            )
        return actions.view(n, self.chunk, self.action_dim)

    def _proprio(self, given: Tensor) -> Tensor:
        want = self.spec.proprio
        if given.dim() != 2 or given.shape[1] != want:
            raise CaliperError(
                f"proprio of a robot has shape {tuple(given.shape[1:])}; this policy takes ({want},), or "
                f"(n, {want}) of n robots: see observation.proprio in its {CARD}"
            )
        if not given.is_floating_point():
            raise CaliperError(f"proprio is {dtype_name(given)}; this policy takes float32")
        given = given.float()  # first: what is too large for it becomes infinite
        if not torch.isfinite(given).all():
            bad = int((~torch.isfinite(given)).any(0).nonzero()[0])
            raise CaliperError(f"proprio holds NaN or infinity in entry {bad}; give a finite number")
        return given

    def _images(self, images: Array | Mapping[str, Array] | None, n: int, many: bool) -> dict[str, Tensor]:
        """The planes of images (n, v, c, h, w), once they are what the policy takes, on its device."""
        if not self.views:
            if images is not None:
                raise CaliperError("this policy sees no images; give None for them")
            return {
                name: torch.zeros(n, *plane.shape, dtype=plane.dtype) for name, plane in self._planes.items()
            }
        if images is None:
            raise CaliperError(f"this policy needs images of {', '.join(self.views)}")
        if not isinstance(images, Mapping):
            if len(self._planes) > 1:
                raise CaliperError(
                    "images are one array, and this policy's are of several sizes or kinds; give a dict of "
                    f"{', '.join(self.views)}"
                )
            images = {"pixels": images}
        if images.keys() == self._planes.keys():
            found = {name: _tensor(images[name], _plural(name)) for name in self._planes}
            for name, plane in self._planes.items():
                self._check_image(found[name], plane, (len(plane.cameras),), n, many, _plural(name))
        else:
            found = self._of_views(images, n, many)
        return {
            name: (image if many else image[None]).to(self.device, self._planes[name].dtype)
            for name, image in found.items()
        }

    def _of_views(self, images: Mapping[str, Array], n: int, many: bool) -> dict[str, Tensor]:
        if set(images) != set(self.views):
            raise CaliperError(
                f"images are of {', '.join(map(str, images)) or 'no camera'}; this policy takes "
                f"{', '.join(self.views)}"
            )
        parts: dict[str, list[Tensor]] = {name: [] for name in self._planes}
        for view, (name, plane) in self.views.items():
            image = _tensor(images[view], f"the image of {view}")
            self._check_image(image, plane, (), n, many, f"the image of {view}")
            parts[name].append(image)
        return {name: torch.stack(part, -4) for name, part in parts.items()}

    def _check_image(
        self, given: Tensor, plane: Plane, views: tuple[int, ...], n: int, many: bool, name: str
    ) -> None:
        got, want = tuple(given.shape), (*((n,) if many else ()), *views, plane.channels, *plane.size)
        if got != want:
            raise CaliperError(f"{name}: {self._fault(got, want, plane)}")
        if plane.kind == "depth":
            if not given.is_floating_point():
                raise CaliperError(
                    f"{name}: the type is {dtype_name(given)}; this policy takes float16, metres"
                )
            if not torch.isfinite(given.to(plane.dtype)).all():
                raise CaliperError(
                    f"{name}: it holds NaN or infinity, or more metres than a float16 can; say 0 where "
                    "nothing is"
                )
        elif given.dtype != torch.uint8:
            most = "0 to 255" if plane.kind == "pixels" else f"0 to {self.spec.instances}"
            raise CaliperError(f"{name}: the type is {dtype_name(given)}; this policy takes uint8, {most}")
        elif plane.kind == "segmentation" and int(given.max()) > self.spec.instances:
            raise CaliperError(
                f"{name}: it holds {int(given.max())}; this policy knows the instances 1 to "
                f"{self.spec.instances}, see observation.instances in its {CARD}"
            )

    def _fault(self, got: tuple[int, ...], want: tuple[int, ...], plane: Plane) -> str:
        """What is wrong with a shape, in words."""
        takes, c = f"this policy takes {want}", plane.channels
        if len(got) > 2 and got[-1] in (1, 3, 4) and got[-3] not in (1, 3, 4):
            also = "" if len(got) == len(want) else f"; and {len(want)} axes, not {len(got)}"
            return (
                f"shape {got} is height, width, channels (HWC); {takes}, channels first (CHW): "
                f"numpy.moveaxis(images, -1, -3){also}"
            )
        if len(got) != len(want):
            return (
                f"shape {got} has {len(got)} axes; {takes}: cameras, {c}, height, width; n in front of many"
            )
        if got[-2:] != want[-2:]:
            h, w = plane.size
            return f"{got[-2]}x{got[-1]} pixels; {takes}, images of {h}x{w} pixels: resize them"
        if got[-3] == c * self.spec.stack != c:
            return f"{self.spec.stack} frames; {takes}, the newest alone: it keeps the earlier ones by itself"
        if got[-3] != c:
            return f"{got[-3]} channels; {takes}, {'RGB' if plane.kind == 'pixels' else plane.kind}"
        return f"shape {got}; {takes}, cameras {', '.join(self.spec.cameras[i] for i in plane.cameras)}"


def spec_of(card: Mapping[str, Any]) -> ObsSpec:
    """What an observation holds, from the card."""
    seen = card["observation"]
    sizes = tuple((camera["height"], camera["width"]) for camera in seen["cameras"])
    return ObsSpec(
        tuple(camera["name"] for camera in seen["cameras"]),
        sizes or 1,
        seen["proprio"]["length"],
        seen["depth"],
        len(seen["instances"]),
        seen["frames"],
    )


def noise(spec: ObsSpec, count: int) -> tuple[Tensor, ...]:
    """Observations of noise, always the same: (count, v, k c, h, w) for each plane, and (count, k p)."""
    g = torch.Generator().manual_seed(0)
    seen = []
    for plane in spec.planes.values():
        v, c, h, w = plane.shape
        shape = (count, v, spec.stack * c, h, w)
        if plane.kind == "depth":
            seen.append(2 * torch.rand(shape, generator=g).to(plane.dtype))
        else:
            most = 255 if plane.kind == "pixels" else spec.instances
            seen.append(torch.randint(0, most + 1, shape, dtype=plane.dtype, generator=g))
    return *seen, torch.randn(count, spec.stack * spec.proprio, generator=g)


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


def _plural(plane: str) -> str:
    """What a sentence calls a plane."""
    return "images" if plane == "pixels" else f"images['{plane}']"


def dtype_name(tensor: Tensor) -> str:
    """The type of its numbers, without "torch."."""
    return str(tensor.dtype).removeprefix("torch.")
