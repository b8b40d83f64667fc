"""Recordings of the robosuite family as their files hold them: no simulator, nothing believed, nothing run.

Another process opens them, see `caliper.data.formats.hdf5`.

    data               attrs: env_args or env_info (JSON), env or env_name, env_version or repository_version
    data/demo_<i>      attrs: model_file (MuJoCo XML, or the name of a file beside), ep_meta
    data/demo_<i>/...  states (t, s) = [time, qpos, qvel], actions (t, a), rewards (t,), obs/<camera>_image
    mask/<key>         names of episodes

Written so by robosuite since 1.0, robomimic, MimicGen, LIBERO, robocasa and RoboTurk's later teleoperation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caliper.data.dataset import numbered
from caliper.data.formats.hdf5 import ForeignFile, UnreadableError
from caliper.errors import CaliperError, no_file

MAX_STEPS, MAX_WIDTH = 200_000, 2_000  # of an episode: nearly three hours at 20 Hz, and 300 objects
MAX_XML = 8 << 20  # bytes of a model; the largest known has 0.3 MB
CANNOT = "can't be used: "  # begins what the reader says of a place in a file
OUTSIDE = "a link to another file"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedDemo:
    """One episode of a file.

    Attributes:
        name: of its group, such as demo_3.
        states: float64 (t, s), the state before each action; (0, 0) where `fault` says why.
        actions: float64 (t, a), as recorded.
        model: MuJoCo XML of the episode's scene, or None if the file has none.
        rewards: float64 (t,), that of the state after each action, or None.
        fault: what makes the episode unreadable, or None.
    """

    name: str
    states: NDArray[np.float64]
    actions: NDArray[np.float64]
    model: str | None = None
    rewards: NDArray[np.float64] | None = None
    fault: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A file, read whole but for its images.

    Attributes:
        path: of the file.
        family: which software wrote it.
        env_name: what that software calls the task; "" if the file doesn't say.
        version: of robosuite, as the file says it; "" if it doesn't.
        settings: arguments of the recorded environment.
        demos: in the order of their numbers.
        masks: names of episodes by filter key, those absent left out.
        images: shape (h, w, 3) of the images by their name in `obs`.
        missing: names of what the layout has and this file lacks, and of what it names and lacks.
    """

    path: Path
    family: str
    env_name: str
    version: str
    settings: Mapping[str, Any]
    demos: Sequence[RecordedDemo]
    masks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    images: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    missing: Sequence[str] = ()


def open_recording(path: str | Path) -> Recording:
    """Reads a file of the family.

    Raises:
        CaliperError: there is no such file, it is damaged, it points out of itself, or it is of none of the
            known kinds. An unreadable episode is no error here: its `fault` says what is wrong.
    """
    path = Path(path)
    if fault := no_file(path):
        raise CaliperError(f"{path} {fault}; name a recording, such as demo.hdf5")
    with _opened(path) as file:
        return _read(file, path)


def read_images(path: Path, demo: str, name: str, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Some images of an episode, uint8 (k, h, w, 3), as they are stored.

    Args:
        path: a file that `open_recording` has read.
        demo: name of the episode.
        name: of the images in `obs`.
        rows: which steps, ascending, (k,).

    Raises:
        CaliperError: they are unreadable, or fewer than the steps.
    """
    with _opened(path) as file:
        images = file.array(f"data/{demo}/obs/{name}")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or len(images) <= rows.max():
        raise CaliperError(
            f"{path}: {demo}: its {name} have the shape {images.shape} of {images.dtype}, not one image of "
            "three colours a step"
        )
    return images[rows]


def read_filters(path: Path) -> dict[str, list[int]]:
    """A dataset's filter keys, each with the places of its episodes in the file's order.

    Raises:
        CaliperError: the file is damaged, or points out of itself.
    """
    with _opened(path) as file:
        names = numbered(_names(file, "data"), "demo_")
        masks, _ = _masks(file, names)
    return {key: sorted(names.index(name) for name in listed) for key, listed in masks.items()}


def is_foreign(path: str | Path) -> bool:
    """Whether a file is a recording that has to be imported: HDF5, but not a dataset of Caliper's."""
    try:
        with ForeignFile(Path(path)) as file:
            return file.names().get("data") == "group" and "scene_hash" not in file.attributes("data")
    except UnreadableError:
        return False


@contextmanager
def _opened(path: Path) -> Iterator[ForeignFile]:
    try:
        with ForeignFile(path) as file:
            yield file
    except UnreadableError as error:
        raise CaliperError(f"{path} {error}; fetch it again") from error


def _read(file: ForeignFile, path: Path) -> Recording:
    if _names(file, "").get("data") != "group":
        raise CaliperError(f"{path} has no group 'data'; it is no recording of robosuite's family")
    names = numbered((n for n, kind in _names(file, "data").items() if kind != "array"), "demo_")
    if not names:
        raise CaliperError(f"{path} holds no episode (no group data/demo_<number>)")
    attrs = _attributes(file, "data")
    info = _json(attrs.get("env_args") or attrs.get("env_info") or "{}", path)
    kwargs = info.get("env_kwargs")
    settings = {**info, **(kwargs if isinstance(kwargs, dict) else {})}
    demos = [_demo(file, name, path) for name in names]
    masks, lost = _masks(file, names)
    first = next((d.name for d in demos if d.fault is None), None)
    has = {} if first is None else _names(file, f"data/{first}")
    absent = [name for name in ("rewards", "dones") if first is not None and name not in has]
    absent += ["model_file"] * any(d.model is None and d.fault is None for d in demos)
    absent += ["version of robosuite"] * (_version(attrs, info) == "")
    absent += ["controller"] * ("controller_configs" not in settings)
    return Recording(
        path=path,
        family=_family(attrs, has, {} if first is None else _attributes(file, f"data/{first}")),
        env_name=str(info.get("env_name") or attrs.get("env") or attrs.get("env_name") or ""),
        version=_version(attrs, info),
        settings=settings,
        demos=demos,
        masks=masks,
        images=_images(file, f"data/{first}/obs") if has.get("obs") == "group" else {},
        missing=[*absent, *lost],
    )


def _names(file: ForeignFile, at: str) -> dict[str, str]:
    """What is in a group. A link to another file is refused, not left out: it is there to be followed."""
    names = file.names(at)
    if outside := [name for name, kind in names.items() if kind == OUTSIDE]:
        where = f"{at}/{outside[0]}".lstrip("/")
        raise CaliperError(f"{file.path} is refused: {where} is {OUTSIDE}; copy what it names into the file")
    return names


def _attributes(file: ForeignFile, at: str) -> dict[str, Any]:
    """Attributes that are text, numbers or truth values."""
    return {name: value for name, (kind, value) in file.attributes(at).items() if kind != "other"}


def _family(attrs: Mapping[str, Any], has: Mapping[str, str], demo: Mapping[str, Any]) -> str:
    """Which software wrote the file, from what it alone leaves there.

    Args:
        attrs: of the file's data.
        has: what is in an episode.
        demo: attributes of that episode.
    """
    if "scene_hash" in attrs:
        return "Caliper"
    if "bddl_file_name" in attrs or "problem_info" in attrs:
        return "LIBERO"
    if "datagen_info" in has or "src_demo_inds" in has:
        return "MimicGen"
    if "layout_id" in str(demo.get("ep_meta", "")):
        return "robocasa"
    if "teleop_config" in attrs or "teleop_config" in demo:
        return "RoboTurk teleoperation"
    return "robomimic" if "env_args" in attrs else "robosuite"


def _version(attrs: Mapping[str, Any], info: Mapping[str, Any]) -> str:
    return str(attrs.get("repository_version") or info.get("env_version") or "")


def _demo(file: ForeignFile, name: str, path: Path) -> RecordedDemo:
    """An episode; its `fault` says what is wrong with it.

    Raises:
        UnreadableError: the file as a whole is lost with it.
    """
    at = f"data/{name}"
    try:
        has = _names(file, at)
        states, actions = _array(file, at, "states", has), _array(file, at, "actions", has)
        if len(states) != len(actions):
            raise ValueError(f"it has {len(states)} states but {len(actions)} actions")
        if not len(states):
            raise ValueError("it has no step")
        rewards = _rewards(file, at, has, len(actions)) if "rewards" in has else None
        model = _model(file, at, path)
        return RecordedDemo(name=name, states=states, actions=actions, model=model, rewards=rewards)
    except (ValueError, OSError) as error:
        fault = str(error)
    except UnreadableError as error:
        if file.ended:
            raise
        fault = str(error).removeprefix(CANNOT).replace(f"{at}/", "")
    nothing = np.zeros((0, 0))
    return RecordedDemo(name=name, states=nothing, actions=nothing, fault=_line(fault))


def _line(text: str) -> str:
    """The first line of a text, which may quote any amount of the file."""
    return (text.strip().splitlines() or [""])[0][:300]


def _rewards(file: ForeignFile, at: str, has: Mapping[str, str], steps: int) -> NDArray[np.float64]:
    """One reward a step, (t,); some writers keep them as truth values, or in a column."""
    rewards = _array(file, at, "rewards", has, column=True).ravel()
    if len(rewards) != steps:
        raise ValueError(f"it has {steps} actions but {len(rewards)} rewards")
    return rewards


def _array(
    file: ForeignFile, at: str, name: str, has: Mapping[str, str], column: bool = False
) -> NDArray[np.float64]:
    """Finite numbers, (t, k); where `column` says so (t,) or (t, 1)."""
    if name not in has:
        more = "; robosuite before 1.0 kept joint velocities instead" if "jvels" in has else ""
        raise ValueError(f"it has no {name}{more}")
    _, shape = file.shape(f"{at}/{name}")
    if len(shape) != 2 and not (column and len(shape) == 1):
        raise ValueError(f"{name} has the shape {shape}; a row for each step is read")
    width = shape[1] if len(shape) == 2 else 1
    if shape[0] > MAX_STEPS or not 0 < width <= (1 if column else MAX_WIDTH):
        raise ValueError(f"{name} has the absurd shape {shape}")
    values = file.array(f"{at}/{name}").astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"{name} holds a value that is not finite")
    return values


def _model(file: ForeignFile, at: str, path: Path) -> str | None:
    """The model's XML: the attribute itself, or the file beside that it names; None if there is neither."""
    kind, text = file.attributes(at).get("model_file", ("text", None))
    if text is None:
        return None
    if kind not in ("text", "other text"):
        raise ValueError(f"its model_file is {text if kind == 'other' else kind}, not text")
    text = text.lstrip("\ufeff")
    if not text.lstrip().startswith("<"):
        folders = (path.parent / "models", path.parent)
        plain = Path(text).name == text and "\0" not in text and len(text) < 256
        beside = [f for folder in folders if plain and (f := folder / text).is_file()]
        if not beside:
            raise ValueError(f"its model '{text[:80]}' is no file beside {path.name} or in models/ there")
        if (size := beside[0].stat().st_size) > MAX_XML:
            raise ValueError(f"its model {text} has {size} bytes")
        text = beside[0].read_text(encoding="utf-8", errors="replace")
    return str(text)


def _masks(file: ForeignFile, names: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Names by filter key, and what the keys name but the file lacks. Empty keys stay, as made."""
    masks: dict[str, list[str]] = {}
    lost, known = [], set(names)
    for key in _names(file, "mask") if _names(file, "").get("mask") == "group" else ():
        try:
            listed = file.texts(f"mask/{key}")
        except UnreadableError as error:
            if file.ended:
                raise
            lost.append(f"mask/{key}, unreadable: {_line(str(error).removeprefix(CANNOT))}")
            continue
        masks[key] = [name for name in listed if name in known]
        if len(masks[key]) < len(listed):
            lost.append(f"{len(listed) - len(masks[key])} of the {len(listed)} episodes of mask/{key}")
    return masks, lost


def _images(file: ForeignFile, at: str) -> dict[str, tuple[int, ...]]:
    """Shape (h, w, 3) of the images in an episode's observations, by name."""
    found: dict[str, tuple[int, ...]] = {}
    for name in (name for name, kind in _names(file, at).items() if kind == "array"):
        with suppress(UnreadableError):  # of no shape that images have
            dtype, shape = file.shape(f"{at}/{name}")
            if dtype == "|u1" and len(shape) == 4 and shape[3] == 3:
                found[name] = shape[1:]
    return found


def _json(text: Any, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise CaliperError(f"{path}: the environment's description is no JSON ({error})") from error
    if not isinstance(value, dict):
        raise CaliperError(f"{path}: the environment's description is no JSON object")
    return value
