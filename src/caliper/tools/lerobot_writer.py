"""Datasets in LeRobot's format v3.0: numbers in Parquet, one MP4 for each camera; LeRobot is not needed.

meta/info.json, meta/stats.json, meta/tasks.parquet
meta/episodes/chunk-000/file-000.parquet        a row for each episode
data/chunk-000/file-000.parquet                 a row for each step
videos/<key>/chunk-000/file-000.mp4             all episodes, one after the other
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caliper.data.dataset import Dataset, Episode
from caliper.errors import CaliperError
from caliper.rollout.video import VideoWriter

FILE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
FIRST = FILE.format(chunk_index=0, file_index=0)
QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}


def write_lerobot(
    folder: Path, dataset: Dataset, sentence: str, episodes: Iterable[tuple[Episode, dict[str, Any]]]
) -> None:
    """Writes a dataset with its observations.

    A step holds what was seen before the action, `observation.state` and `observation.images.<camera>`, the
    `action`, and `next.reward`, `next.done` and `next.success` after it. What the last action led to is not
    in this format.

    Args:
        folder: an empty one.
        dataset: of the episodes.
        sentence: the task in words, which policies that read language are given.
        episodes: each with its t + 1 observations under LeRobot's names, see
            `caliper.envs.observation.names.named`.

    Raises:
        CaliperError: pyarrow is missing, an image has an odd side, or ffmpeg fails.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise CaliperError(
            f"LeRobot's format needs pyarrow ({error}); install: pip install 'caliper-rl[lerobot]'"
        ) from error
    fps, rows, columns = dataset.meta.control_freq, [], {}
    states, pictures, sizes, first = [], {}, {}, 0
    with ExitStack() as stack:
        writers: dict[str, VideoWriter] = {}
        for i, (episode, obs) in enumerate(episodes):
            t = len(episode)
            row: dict[str, Any] = {"episode_index": i, "tasks": [sentence], "length": t}
            row |= {"dataset_from_index": first, "dataset_to_index": first + t}
            row |= {
                f"{part}/{kind}_index": 0 for part in ("data", "meta/episodes") for kind in ("chunk", "file")
            }
            for camera, images in obs.get("pixels", {}).items():
                key = f"observation.images.{camera}"
                if key not in writers:
                    sizes[key], pictures[key] = images.shape[1:], _Moments()
                    if sizes[key][0] % 2 or sizes[key][1] % 2:
                        raise CaliperError(
                            f"{key} has images of {sizes[key][0]}x{sizes[key][1]} pixels, and videos have "
                            "even sides; choose another --size"
                        )
                    path = folder / "videos" / key / f"{FIRST}.mp4"
                    writers[key] = stack.enter_context(VideoWriter(path, fps))
                for image in images[:t]:
                    writers[key].write(image)
                pictures[key].add(images[:t])
                row |= {f"videos/{key}/{kind}_index": 0 for kind in ("chunk", "file")}
                row |= {f"videos/{key}/from_timestamp": first / fps}
                row |= {f"videos/{key}/to_timestamp": (first + t) / fps}
            states.append(obs["agent_pos"][:t])
            rows.append(row)
            first += t
    lengths = [len(episode) for episode in dataset.episodes]
    steps = np.concatenate([np.arange(t) for t in lengths])
    done = steps == np.repeat(lengths, lengths) - 1
    rewards = np.concatenate([episode.rewards for episode in dataset.episodes]).astype(np.float32)
    columns = {
        "observation.state": np.concatenate(states).astype(np.float32),
        "action": np.concatenate([episode.actions for episode in dataset.episodes]).astype(np.float32),
        "next.reward": rewards,
        "next.done": done,
        "next.success": rewards > 0,
        "timestamp": (steps / fps).astype(np.float32),
        "frame_index": steps.astype(np.int64),
        "episode_index": np.repeat(np.arange(len(lengths)), lengths).astype(np.int64),
        "index": np.arange(first, dtype=np.int64),
        "task_index": np.zeros(first, np.int64),
    }
    features: dict[str, Any] = {
        key: {"dtype": str(array.dtype), "shape": list(array.shape[1:]) or [1], "names": None}
        for key, array in columns.items()
    }
    for key, size in sizes.items():
        told = {"video.fps": fps, "video.height": size[0], "video.width": size[1], "video.channels": 3}
        told |= {
            "video.codec": "h264",
            "video.pix_fmt": "yuv420p",
            "video.is_depth_map": False,
            "has_audio": False,
        }
        names = ["height", "width", "channels"]
        features[key] = {"dtype": "video", "shape": list(size), "names": names, "info": told}
    stats = {key: _stats(array) for key, array in columns.items()}
    stats |= {key: moments.stats() for key, moments in pictures.items()}
    info = {
        "codebase_version": "v3.0",
        "robot_type": dataset.meta.robot,
        "total_episodes": len(rows),
        "total_frames": first,
        "total_tasks": 1,
        "chunks_size": 1000,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": fps,
        "splits": {"train": f"0:{len(rows)}"},
        "data_path": f"data/{FILE}.parquet",
        "video_path": f"videos/{{video_key}}/{FILE}.mp4" if sizes else None,
        "features": features,
    }
    for name in ("meta/episodes", "data"):
        (folder / name / FIRST).parent.mkdir(parents=True)
    arrays = {key: _column(pa, array) for key, array in columns.items()}
    pq.write_table(pa.table(arrays), folder / "data" / f"{FIRST}.parquet")
    pq.write_table(pa.Table.from_pylist(rows), folder / "meta" / "episodes" / f"{FIRST}.parquet")
    tasks = pa.table({"task_index": pa.array([0], pa.int64()), "task": [sentence]})
    # LeRobot reads the table with pandas and finds a task by the index.
    kinds = (("task_index", "int64", "int64"), ("task", "unicode", "object"))
    kept = [
        {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy, "metadata": None}
        for name, kind, numpy in kinds
    ]
    pandas = {"index_columns": ["task"], "column_indexes": [], "columns": kept, "pandas_version": "2.2.0"}
    pq.write_table(
        tasks.replace_schema_metadata({"pandas": json.dumps(pandas)}), folder / "meta" / "tasks.parquet"
    )
    for name, content in (("info", info), ("stats", stats)):
        (folder / "meta" / f"{name}.json").write_text(json.dumps(content, indent=4), encoding="utf-8")


def _column(pa: Any, array: NDArray[Any]) -> Any:
    """A column of numbers, or of vectors (rows, k)."""
    if array.ndim == 1:
        return pa.array(array)
    return pa.FixedSizeListArray.from_arrays(pa.array(array.ravel()), array.shape[1])


def _stats(array: NDArray[Any]) -> dict[str, list[float]]:
    """What LeRobot normalises by, of each entry of a column."""
    x = array.astype(np.float64).reshape(len(array), -1)  # (rows, k)
    found = {"min": x.min(0), "max": x.max(0), "mean": x.mean(0), "std": x.std(0)}
    found |= {name: np.quantile(x, q, 0) for name, q in QUANTILES.items()}
    return {name: value.tolist() for name, value in found.items()} | {"count": [len(array)]}


class _Moments:
    """Statistics of images as they pass, for each colour, of values in [0, 1]."""

    def __init__(self) -> None:
        self._counts = np.zeros((3, 256), np.int64)  # of each value
        self._images = 0

    def add(self, images: NDArray[np.uint8]) -> None:
        """Takes images (t, h, w, 3) into account."""
        for colour in range(3):
            self._counts[colour] += np.bincount(images[..., colour].ravel(), minlength=256)
        self._images += len(images)

    def stats(self) -> dict[str, Any]:
        """As `_stats`, each of the shape (3, 1, 1)."""
        values, shares = np.arange(256) / 255, self._counts / self._counts.sum(1, keepdims=True)
        mean = shares @ values
        below = shares.cumsum(1)
        found = {
            "min": values[(self._counts > 0).argmax(1)],
            "max": values[255 - (self._counts[:, ::-1] > 0).argmax(1)],
            "mean": mean,
            "std": np.sqrt(np.maximum(shares @ values**2 - mean**2, 0)),
        }
        found |= {name: values[(below >= q - 1e-12).argmax(1)] for name, q in QUANTILES.items()}
        shaped = {name: value[:, None, None].tolist() for name, value in found.items()}
        return shaped | {"count": [self._images]}
