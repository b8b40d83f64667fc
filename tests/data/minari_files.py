"""Small datasets in Minari's HDF5 layout, as Minari 0.5 writes them."""

import json
from pathlib import Path

import h5py
import numpy as np


def episode(rewards, *, proprio=3, actions=2, success=None, terminations=(), first=0.0, frames=None):
    """One episode whose observation number i is first + i in every entry, as the datasets of its group."""
    t = len(rewards)
    obs = np.repeat(
        first + np.arange(t + 1 if frames is None else frames, dtype=np.float64)[:, None], proprio, 1
    )
    parts = {
        "observations": obs,
        "actions": np.repeat(np.linspace(-0.9, 0.9, t, dtype=np.float32)[:, None], actions, 1),
        "rewards": np.asarray(rewards, np.float64),
        "terminations": np.isin(np.arange(t), terminations),
        "truncations": np.arange(t) == t - 1,
    }
    if success is not None:
        parts["infos/success"] = np.asarray(success, bool)
    return parts


def write(folder: Path, *episodes, env_id=None, **metadata) -> Path:
    """Writes a dataset; a dict among an episode's parts becomes a group."""
    (folder / "data").mkdir(parents=True)
    with h5py.File(folder / "data" / "main_data.hdf5", "w", track_order=True) as file:
        for i, parts in enumerate(episodes):
            group = file.create_group(f"episode_{i}")
            group.attrs["id"] = i
            for name, value in parts.items():
                for key, array in value.items() if isinstance(value, dict) else [("", value)]:
                    group[f"{name}/{key}".rstrip("/")] = array
    meta = {"total_episodes": len(episodes), "data_format": "hdf5", "dataset_id": "made/here-v0"}
    if env_id is not None:
        meta["env_spec"] = json.dumps({"id": env_id, "entry_point": "somewhere:Env", "kwargs": {}})
    (folder / "metadata.json").write_text(json.dumps(meta | metadata))
    return folder
