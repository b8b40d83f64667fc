"""Datasets of observations in Minari's HDF5 layout, read from a local folder into whole episodes.

    data/metadata.json         data_format "hdf5", total_episodes, env_spec (JSON in a string), ...
    data/main_data.hdf5
    episode_<i>/               actions (t, a), rewards, terminations, truncations (t,), infos/...
    episode_<i>/observations   (t + 1, p), or a group with an array for each entry of a dict

Minari itself is not needed. Nothing is downloaded, and reading runs no code of the file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from caliper.data.buffer import ReplayBuffer
from caliper.data.dataset import numbered
from caliper.data.formats.checksum import digest
from caliper.data.formats.hdf5 import ForeignFile, UnreadableError
from caliper.errors import CaliperError, no_file
from caliper.types import Obs

Floats = NDArray[np.float32]
LONGEST_METADATA = 16 << 20  # bytes
GOALS = ("achieved_goal", "desired_goal")  # where there is one of them among the observations, both are
FIX = "get it again from Minari, with: minari download <dataset>"


@dataclass(frozen=True, slots=True)
class Recording:
    """One recorded episode of observations.

    Attributes:
        obs: float32 (t + 1, p), flat; the last is what the last action led to.
        actions: float32 (t, a) in [-1, 1].
        rewards: float32 (t,), raw.
        terminals: bool (t,), whether the step led to a terminal state; a time-out is none.
    """

    obs: Floats
    actions: Floats
    rewards: Floats
    terminals: NDArray[np.bool_]

    def parts(self) -> Iterator[Recording]:
        """The stretches that end with a terminal state, and the rest."""
        borders = sorted({0, *(np.flatnonzero(self.terminals) + 1).tolist(), len(self.actions)})
        for a, b in pairwise(borders):
            yield Recording(self.obs[a : b + 1], self.actions[a:b], self.rewards[a:b], self.terminals[a:b])

    def until_last_success(self) -> Recording | None:
        """The episode up to its last terminal state, or None if it has none."""
        if not self.terminals.any():
            return None
        t = int(np.flatnonzero(self.terminals)[-1]) + 1
        return Recording(self.obs[: t + 1], self.actions[:t], self.rewards[:t], self.terminals[:t])


@dataclass(frozen=True, slots=True)
class Recordings:
    """A dataset of observations, cut into episodes by a benchmark's rules.

    Attributes:
        path: the folder it was read from.
        env_id: the environment it was recorded in, if the file says so.
        episodes: each ends at its first terminal state, or is cut off.
        dropped: recorded episodes that the rules leave out.
        content: SHA-256 of the environment's name and the episodes as they are cut.
    """

    path: Path
    env_id: str | None
    episodes: list[Recording]
    dropped: int = 0
    content: str = ""

    @property
    def num_transitions(self) -> int:
        """Transitions of all episodes."""
        return sum(len(e.actions) for e in self.episodes)

    @property
    def num_frames(self) -> int:
        """Frames of all episodes: the capacity that a buffer needs for them."""
        return self.num_transitions + len(self.episodes)

    def check(self, env_id: str, proprio: int, action_dim: int) -> None:
        """Refuses data of another environment.

        Raises:
            CaliperError: the environment, or the length of an observation or action, differs.
        """
        if self.env_id not in (None, env_id):
            raise CaliperError(
                f"{self.path} was recorded in {self.env_id}, the task is {env_id}; choose the task of the "
                f"data, or set task.env_id={self.env_id}"
            )
        first = self.episodes[0]
        found, wanted = (first.obs.shape[1], first.actions.shape[1]), (proprio, action_dim)
        if found != wanted:
            raise CaliperError(
                f"{self.path} has observations and actions of {found[0]} and {found[1]} numbers, {env_id} of "
                f"{wanted[0]} and {wanted[1]}; choose the task of the data, or another version in task.env_id"
            )

    def fill(self, buffer: ReplayBuffer) -> None:
        """Adds all episodes to a buffer, which must have room for them."""
        for episode in self.episodes:
            proprio = torch.as_tensor(episode.obs, device=buffer.device)  # (t + 1, p)
            pixels = torch.zeros((len(proprio), 0, 3, 1, 1), dtype=torch.uint8, device=buffer.device)
            actions = torch.as_tensor(episode.actions, device=buffer.device)
            rewards = torch.as_tensor(episode.rewards)
            buffer.add_episode(Obs(pixels, proprio), actions, rewards, bool(episode.terminals[-1]))


def read_minari(path: str | Path, dense: bool = False, successes_only: bool = False) -> Recordings:
    """Reads a whole dataset into memory and cuts it as the official code of Cal-QL cuts D4RL's.

    Binary data (not `dense`): the raw reward is 1 where the step succeeded and 0 else, and success is
    terminal; the recording may go on after it. Success is `infos/success`; without it rewards must be 0 and
    1, or -1 and 0 as in the binary Adroit data. Dense data keeps its rewards and terminations. Either way an
    episode that ends otherwise is cut off, not terminal: its last transition bootstraps from the last
    observation, and is dropped if the file has none. Actions are clipped to [-1, 1], as the environments do.

    Args:
        path: the dataset's folder, whose data/ holds metadata.json and main_data.hdf5.
        dense: whether the recorded rewards are the raw ones.
        successes_only: whether episodes without success are dropped, and what follows the last success.

    Raises:
        CaliperError: there is no such dataset, or it is damaged, lacks something, or no episode is left.
    """
    path = Path(path)
    meta = _metadata(path)
    main = path / "data" / "main_data.hdf5"
    if not main.is_file():
        raise CaliperError(f"{path} has no data/main_data.hdf5; {FIX}")
    try:
        with ForeignFile(main) as file:
            inside = file.names()
            names = numbered((name for name in inside if inside[name] == "group"), "episode_")
            if len(names) != meta.get("total_episodes", len(names)) or not names:
                said = meta.get("total_episodes")
                raise CaliperError(f"{main} holds {len(names)} episodes, metadata.json says {said}; {FIX}")
            episodes = [_Episode(file, name) for name in names]
            rewards = np.unique(np.concatenate([e.array("rewards", np.float32).ravel() for e in episodes]))
            recorded = [_read(episode, None if dense else rewards, main) for episode in episodes]
    except UnreadableError as error:
        raise CaliperError(f"{main} {error}; {FIX}") from error
    if len({(e.obs.shape[1], e.actions.shape[1]) for e in recorded}) > 1:
        raise CaliperError(f"{main} is damaged: its episodes differ in the length of observations or actions")
    kept = [k for e in recorded if (k := e.until_last_success() if successes_only else e) is not None]
    parts = [part for e in kept for part in e.parts()]
    if not parts:
        raise CaliperError(
            f"{path} has no episode left: none of {len(recorded)} succeeds or is long enough; choose another "
            "dataset, or set task.successes_only=false"
        )
    env_id = _env_id(meta)
    fields = ("obs", "actions", "rewards", "terminals")
    content = digest(
        {"env_id": env_id, "parts": [digest({}, {n: getattr(p, n) for n in fields}) for p in parts]}
    )
    return Recordings(path, env_id, parts, dropped=len(recorded) - len(kept), content=content)


def _metadata(path: Path) -> dict[str, Any]:
    there = [file for file in (path / "data" / "metadata.json", path / "metadata.json") if file.is_file()]
    if not there:
        what = "holds no Minari dataset" if path.is_dir() else no_file(path) or "is a file"
        raise CaliperError(
            f"{path} {what}; name the folder of a Minari dataset, whose data/ holds "
            "metadata.json and main_data.hdf5, or a dataset file of Caliper's"
        )
    file = there[0]
    try:
        if file.stat().st_size > LONGEST_METADATA:
            raise ValueError(f"it is larger than {LONGEST_METADATA >> 20} MiB")
        meta = json.loads(file.read_text(encoding="utf-8"))
        kind = meta.get("data_format", "hdf5")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise CaliperError(f"{file} cannot be read ({error}); {FIX}") from error
    if kind != "hdf5":
        raise CaliperError(f"{path} is in Minari's {kind} format; only its hdf5 format can be read")
    return dict(meta)


def _env_id(meta: dict[str, Any]) -> str | None:
    """The recorded environment's name; of the rest of its specification nothing is used, and nothing run."""
    try:
        return str(json.loads(meta["env_spec"])["id"])
    except (KeyError, TypeError, ValueError, RecursionError):
        return None


class _Episode:
    """A recorded episode's arrays, by their paths in its group, which must hold the usual ones."""

    def __init__(self, file: ForeignFile, name: str) -> None:
        self._file, self.name = file, f"/{name}"
        self.held = self.names()
        needed = ("observations", "actions", "rewards", "terminations")
        if absent := [part for part in needed if part not in self.held]:
            raise CaliperError(f"{file.path} lacks {', '.join(absent)} in {self.name}; {FIX}")

    def names(self, at: str = "") -> dict[str, str]:
        """What is in the episode, or in a group of it."""
        return self._file.names(f"{self.name}/{at}")

    def array(self, name: str, kind: type) -> NDArray[Any]:
        """An array of the episode."""
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused with its place
            return self._file.array(f"{self.name}/{name}").astype(kind)


def _read(episode: _Episode, levels: Floats | None, main: Path) -> Recording:
    """One recorded episode, with success as terminal; `levels` are the file's rewards if it is binary."""

    def refuse(what: str) -> CaliperError:
        return CaliperError(f"{main} cannot be used: in {episode.name} {what}; {FIX}")

    names = ["observations"]
    if episode.held["observations"] == "group":
        inside = episode.names("observations")
        if len(absent := [name for name in GOALS if name not in inside]) == 1:
            raise refuse(f"observations has no {absent[0]}")
        names = [f"observations/{k}" for k in sorted(inside) if inside[k] == "array"]
    arrays = [episode.array(name, np.float32) for name in names]
    actions, rewards = (episode.array(name, np.float32) for name in ("actions", "rewards"))
    terminals = episode.array("terminations", bool)
    t = rewards.size
    for name, array, lengths in (
        *((name, array, (t + 1, t)) for name, array in zip(names, arrays, strict=True)),
        ("actions", actions, (t,)),
    ):
        if array.ndim != 2 or len(array) not in lengths:
            raise refuse(f"{name} has the shape {array.shape}, expected ({lengths[0]}, numbers)")
        if not np.isfinite(array).all():
            raise refuse(f"{name} holds a value that is not finite")
    if not arrays or t == 0 or rewards.shape != (t,) or terminals.shape != (t,):
        raise refuse(f"rewards have the shape {rewards.shape}, terminations {terminals.shape}")
    if levels is not None:
        terminals = _success(episode, rewards, levels, refuse)
        rewards = terminals.astype(np.float32)
    if not np.isfinite(rewards).all():
        raise refuse("rewards holds a value that is not finite")
    flat = np.concatenate([a[: min(map(len, arrays))] for a in arrays], axis=1)  # (t + 1, p), or (t, p)
    whole = Recording(flat, np.clip(actions, -1, 1), rewards, terminals)
    if len(flat) == t + 1:
        return whole
    if terminals[-1]:  # where it led is masked
        return replace(whole, obs=np.concatenate([flat, flat[-1:]]))
    return Recording(flat, whole.actions[:-1], rewards[:-1], terminals[:-1])


def _success(
    episode: _Episode,
    rewards: Floats,
    levels: Floats,
    refuse: Callable[[str], CaliperError],
) -> NDArray[np.bool_]:
    """Which steps succeeded, bool (t,)."""
    if episode.held.get("infos") == "group" and "success" in episode.names("infos"):
        said = episode.array("infos/success", bool)
        if said.ndim != 1 or len(said) not in (len(rewards), len(rewards) + 1):
            raise refuse(f"infos/success has the shape {said.shape}, expected ({len(rewards)},)")
        return said[-len(rewards) :]  # the first may be the reset's
    for low, high in ((0, 1), (-1, 0)):
        if set(levels.tolist()) <= {low, high}:
            return np.equal(rewards, high)
    raise refuse("there is no infos/success, and the rewards are not binary")
