"""Recordings of the robosuite family as their files hold them: no simulator, nothing believed, nothing run.

    data               attrs: env_args or env_info (JSON), env or env_name, env_version or repository_version
    data/demo_<i>      attrs: model_file (MuJoCo XML, or the name of a file beside), ep_meta
    data/demo_<i>/...  states (t, s) = [time, qpos, qvel], actions (t, a), rewards (t,), obs/<camera>_image
    mask/<key>         names of episodes

Written so by robosuite since 1.0, robomimic, MimicGen, LIBERO, robocasa and RoboTurk's later teleoperation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from caliper.data.dataset import numbered
from caliper.errors import CaliperError

MAX_STEPS, MAX_WIDTH = 200_000, 2_000  # of an episode: nearly three hours at 20 Hz, and 300 objects
MAX_XML = 8 << 20  # bytes of a model; the largest known has 0.3 MB
UNSTORED = 64 << 20  # bytes that a dataset may claim without having them in the file
RATIO = 1100  # gzip, HDF5's best, makes no more than 1032 bytes of one


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
    if not path.is_file():
        raise CaliperError(f"there is no file {path}; name a recording, such as demo.hdf5")
    try:
        with h5py.File(path, "r") as file:
            return _read(file, path)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:  # as h5py passes failures on
        reason = _reason(error)
        raise CaliperError(f"{path} is damaged or not an HDF5 file ({reason}); fetch it again") from error


def read_images(path: Path, demo: str, name: str, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Some images of an episode, uint8 (k, h, w, 3), as they are stored.

    Args:
        path: a file that `open_recording` has read.
        demo: name of the episode.
        name: of the images in `obs`.
        rows: which steps, ascending, (k,).
    """
    with h5py.File(path, "r") as file:
        _refuse_outside(file, path)
        images: NDArray[np.uint8] = _stored(file[f"data/{demo}/obs/{name}"], name)[rows]
        return images


def read_filters(path: Path) -> dict[str, list[int]]:
    """A dataset's filter keys, each with the places of its episodes in the file's order."""
    with h5py.File(path, "r") as file:
        _refuse_outside(file, path)
        names = numbered(file["data"], "demo_")
        masks, _ = _masks(file.get("mask"), names)
    return {key: sorted(names.index(name) for name in listed) for key, listed in masks.items()}


def is_foreign(path: str | Path) -> bool:
    """Whether a file is a recording that has to be imported: HDF5, but not a dataset of Caliper's."""
    try:
        with h5py.File(path, "r") as file:
            data = file.get("data")
            return isinstance(data, h5py.Group) and "scene_hash" not in data.attrs
    except (OSError, RuntimeError):
        return False


def _read(file: h5py.File, path: Path) -> Recording:
    _refuse_outside(file, path)
    data = file.get("data")
    if not isinstance(data, h5py.Group):
        raise CaliperError(f"{path} has no group 'data'; it is no recording of robosuite's family")
    names = [n for n in numbered(data, "demo_") if isinstance(data[n], h5py.Group)]
    if not names:
        raise CaliperError(f"{path} holds no episode (no group data/demo_<number>)")
    attrs = {name: _text(value) for name, value in data.attrs.items()}
    info = _json(attrs.get("env_args") or attrs.get("env_info") or "{}", path)
    kwargs = info.get("env_kwargs")
    settings = {**info, **(kwargs if isinstance(kwargs, dict) else {})}
    demos = [_demo(data[name], path) for name in names]
    masks, lost = _masks(file.get("mask"), names)
    first = data[names[0]]
    absent = [name for name in ("rewards", "dones") if name not in first]
    absent += ["model_file"] * any(d.model is None and d.fault is None for d in demos)
    absent += ["version of robosuite"] * (_version(attrs, info) == "")
    absent += ["controller"] * ("controller_configs" not in settings)
    return Recording(
        path=path,
        family=_family(attrs, first),
        env_name=str(info.get("env_name") or attrs.get("env") or attrs.get("env_name") or ""),
        version=_version(attrs, info),
        settings=settings,
        demos=demos,
        masks=masks,
        images=_images(first),
        missing=[*absent, *lost],
    )


def _family(attrs: Mapping[str, Any], demo: h5py.Group) -> str:
    """Which software wrote the file, from what it alone leaves there."""
    if "scene_hash" in attrs:
        return "Caliper"
    if "bddl_file_name" in attrs or "problem_info" in attrs:
        return "LIBERO"
    if "datagen_info" in demo or "src_demo_inds" in demo:
        return "MimicGen"
    if "layout_id" in str(demo.attrs.get("ep_meta", "")):
        return "robocasa"
    if "teleop_config" in attrs or "teleop_config" in demo.attrs:
        return "RoboTurk teleoperation"
    return "robomimic" if "env_args" in attrs else "robosuite"


def _version(attrs: Mapping[str, Any], info: Mapping[str, Any]) -> str:
    return str(attrs.get("repository_version") or info.get("env_version") or "")


def _demo(group: h5py.Group, path: Path) -> RecordedDemo:
    name, nothing = group.name.rpartition("/")[2], np.zeros((0, 0))
    try:
        states, actions = _array(group, "states", 2), _array(group, "actions", 2)
        if len(states) != len(actions):
            raise ValueError(f"it has {len(states)} states but {len(actions)} actions")
        if not len(states):
            raise ValueError("it has no step")
        model = group.attrs.get("model_file")
        rewards = _rewards(group, len(actions)) if "rewards" in group else None
        model = None if model is None else _model(_text(model), path)
        return RecordedDemo(name=name, states=states, actions=actions, model=model, rewards=rewards)
    except (ValueError, TypeError, KeyError, OSError, RuntimeError) as error:
        return RecordedDemo(name=name, states=nothing, actions=nothing, fault=_reason(error))


def _reason(error: Exception) -> str:
    """The first line of an error, which may quote any amount of the file."""
    lines = str(error).strip("'\"").splitlines()
    return lines[0][:300] if lines else type(error).__name__


def _rewards(group: h5py.Group, steps: int) -> NDArray[np.float64]:
    """One reward a step, (t,); some writers keep them as truth values, or in a column."""
    rewards = _array(group, "rewards", None).ravel()
    if len(rewards) != steps:
        raise ValueError(f"it has {steps} actions but {len(rewards)} rewards")
    return rewards


def _array(group: h5py.Group, name: str, dimensions: int | None) -> NDArray[np.float64]:
    """Finite numbers, of as many dimensions as said; of one, or of two with one column, where None is."""
    if name not in group:
        more = "; robosuite before 1.0 kept joint velocities instead" if "jvels" in group else ""
        raise ValueError(f"it has no {name}{more}")
    dataset = _stored(group[name], name)
    fits = dataset.ndim == dimensions or (dimensions is None and dataset.ndim in (1, 2))
    if dataset.dtype.kind not in "fiub" or not fits:
        raise ValueError(f"{name} has the shape {dataset.shape} of {dataset.dtype}")
    width = dataset.shape[1] if dataset.ndim == 2 else 1
    if dataset.shape[0] > MAX_STEPS or not 0 < width <= (1 if dimensions is None else MAX_WIDTH):
        raise ValueError(f"{name} has the absurd shape {dataset.shape}")
    values = np.asarray(dataset, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"{name} holds a value that is not finite")
    return values


def _stored(dataset: Any, name: str) -> h5py.Dataset:
    """The dataset, if what it claims to hold can be in the file; checked before anything is allocated."""
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"{name} is a group, not numbers")
    if dataset.external or (
        dataset.is_virtual and any(s.file_name != "." for s in dataset.virtual_sources())
    ):
        raise ValueError(f"{name} lies in another file")
    claimed = dataset.size * dataset.dtype.itemsize if dataset.shape is not None else 0
    if not dataset.is_virtual and claimed > max(UNSTORED, RATIO * dataset.id.get_storage_size()):
        raise ValueError(f"{name} claims the shape {dataset.shape}, which the file cannot hold")
    return dataset


def _model(text: str, path: Path) -> str:
    """The model's XML: the attribute itself, or the file beside that it names."""
    if not isinstance(text, str):
        raise ValueError(f"its model_file is {type(text).__name__}, not text")
    text = text.lstrip("\ufeff")
    if not text.lstrip().startswith("<"):
        beside = [f for f in (path.parent / "models" / text, path.parent / text) if f.is_file()]
        if Path(text).name != text or not beside:
            raise ValueError(f"its model '{text[:80]}' is no file beside {path.name} or in models/ there")
        if beside[0].stat().st_size > MAX_XML:
            raise ValueError(f"its model {text} has {beside[0].stat().st_size} bytes")
        text = beside[0].read_text(encoding="utf-8", errors="replace")
    if len(text) > MAX_XML:
        raise ValueError(f"its model has {len(text)} bytes")
    return text


def _masks(group: Any, names: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Names by filter key, and what the keys name but the file lacks. Empty keys stay, as made."""
    masks, lost, known = {}, [], set(names)
    for key, dataset in group.items() if isinstance(group, h5py.Group) else ():
        try:
            listed = [str(_text(name)) for name in np.ravel(_stored(dataset, key)[()]).tolist()]
        except (ValueError, TypeError, AttributeError) as error:
            lost.append(f"mask/{key}, unreadable: {_reason(error)}")
            continue
        masks[key] = [name for name in listed if name in known]
        if len(masks[key]) < len(listed):
            lost.append(f"{len(listed) - len(masks[key])} of the {len(listed)} episodes of mask/{key}")
    return masks, lost


def _images(demo: h5py.Group) -> dict[str, tuple[int, ...]]:
    obs = demo.get("obs")
    if not isinstance(obs, h5py.Group):
        return {}
    found = {name: o for name, o in obs.items() if isinstance(o, h5py.Dataset)}
    return {
        name: o.shape[1:]
        for name, o in found.items()
        if o.ndim == 4 and o.shape[3] == 3 and o.dtype == np.uint8
    }


def _refuse_outside(file: h5py.File, path: Path) -> None:
    """Refuses links to other files: they would read what the file's maker wants to know of this machine."""

    def visit(name: str, link: Any) -> tuple[str, str] | None:
        return (name, link.filename) if isinstance(link, h5py.ExternalLink) else None

    if found := file.visititems_links(visit):
        raise CaliperError(
            f"{path} is refused: {found[0]} is a link to another file ({found[1]}); copy what it names into "
            "the file"
        )


def _text(value: Any) -> Any:
    """Attributes of text come as bytes from some writers, or as an array that holds one."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _json(text: Any, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (TypeError, ValueError) as error:
        raise CaliperError(f"{path}: the environment's description is no JSON ({error})") from error
    if not isinstance(value, dict):
        raise CaliperError(f"{path}: the environment's description is no JSON object")
    return value
