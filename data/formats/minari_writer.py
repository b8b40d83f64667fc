"""Datasets of observations in Minari's HDF5 layout (see `minari` beside it), written without Minari."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from caliper.data.dataset import Dataset, Episode
from caliper.data.formats.minari import Recording

VERSION = "0.5.4"  # of Minari, whose layout this is


def write_minari(
    folder: Path, dataset: Dataset, episodes: Iterable[tuple[Episode, Mapping[str, NDArray[Any]]]]
) -> None:
    """Writes a dataset with its observations; images stay as they are, without the losses of JPEG.

    The reward is the recorded one, success ends an episode (`terminations`), the horizon cuts it
    (`truncations`). `infos/success` says of each observation whether the task is solved there.

    Args:
        folder: an empty one.
        dataset: of the episodes.
        episodes: each with the parts of its t + 1 observations by name, an array (t + 1, ...) each.
    """
    (folder / "data").mkdir()
    main, steps, spaces = folder / "data" / "main_data.hdf5", 0, {}
    with h5py.File(main, "w", track_order=True) as file:
        for i, (episode, obs) in enumerate(episodes):
            group, t = file.create_group(f"episode_{i}"), len(episode)
            group.attrs.update({"id": i, "seed": episode.seed, "total_steps": t})
            for name, array in obs.items():
                group.create_dataset(f"observations/{name}", data=array, compression="gzip", chunks=True)
                spaces[name] = _box(array.shape[1:], array.dtype)
            last = np.arange(t) == t - 1
            group["actions"], group["rewards"] = episode.actions, episode.rewards
            group["terminations"] = last & episode.terminated
            group["truncations"] = last & (not episode.terminated)
            group["infos/success"] = np.append(False, episode.rewards > 0)
            steps += t
    meta = dataset.meta
    action = {"type": "Box", "dtype": "float32", "shape": [meta.action_dim]}
    action |= {"low": [-1.0] * meta.action_dim, "high": [1.0] * meta.action_dim}
    told = {
        "jpeg_encoding": False,
        "observation_space": json.dumps({"type": "Dict", "subspaces": spaces}),
        "action_space": json.dumps(action),
        "algorithm_name": meta.collector,
        "description": f"{meta.robot}, {meta.controller} at {meta.control_freq} Hz. {meta.action}",
        "content": dataset.content,
    }
    _describe(main, meta.task, len(dataset.episodes), steps, told)


def _box(shape: tuple[int, ...], dtype: np.dtype[Any]) -> dict[str, Any]:
    """A `gymnasium.spaces.Box` as Minari writes it."""
    low, high = (0, 255) if dtype == np.uint8 else (-np.inf, np.inf)
    ends = {"low": np.full(shape, low).tolist(), "high": np.full(shape, high).tolist()}
    return {"type": "Box", "dtype": str(dtype), "shape": list(shape), **ends}


def write_observations(
    folder: Path, env_id: str, name: str, episodes: Iterable[Recording], description: str
) -> None:
    """Writes episodes of flat observations.

    The reward is the raw one, `infos/success` what the recording calls terminal.

    Args:
        folder: an empty one.
        env_id: of the environment, which whoever trains on the data will be held to.
        name: of the task.
        episodes: what is recorded.
        description: how, in a few words.
    """
    (folder / "data").mkdir()
    main, count, steps = folder / "data" / "main_data.hdf5", 0, 0
    with h5py.File(main, "w", track_order=True) as file:
        for i, episode in enumerate(episodes):
            group, t = file.create_group(f"episode_{i}"), len(episode.actions)
            count, steps = count + 1, steps + t
            group.attrs.update({"id": i, "total_steps": t})
            last = np.arange(t) == t - 1
            group["observations"], group["actions"] = episode.obs, episode.actions
            group["rewards"], group["terminations"] = episode.rewards, episode.terminals
            group["truncations"] = last & ~episode.terminals
            group["infos/success"] = np.append(False, episode.terminals)
    told = {"env_spec": json.dumps({"id": env_id}), "description": description}
    _describe(main, name, count, steps, told)


def _describe(main: Path, task: str, episodes: int, steps: int, told: Mapping[str, Any]) -> None:
    """Writes Minari's description beside the data: what every one says, and what is `told` of this one."""
    content = {
        "dataset_id": f"caliper/{task.replace('_', '-')}-v0",
        "data_format": "hdf5",
        "total_episodes": episodes,
        "total_steps": steps,
        "dataset_size": round(main.stat().st_size / 1e6, 1),  # megabytes, as Minari counts them
        "minari_version": VERSION,
        **told,
    }
    main.with_name("metadata.json").write_text(json.dumps(content), encoding="utf-8")
