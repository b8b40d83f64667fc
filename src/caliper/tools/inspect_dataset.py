"""What `caliper inspect FILE` prints: the contents of a dataset, and whether they fit the installed scene."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from caliper.agents.actor_critic import CriticConfig
from caliper.config.build import installed
from caliper.data.dataset import Dataset, DatasetMeta, Episode
from caliper.data.formats.minari import read_minari
from caliper.data.formats.robomimic import read_dataset
from caliper.data.returns import RewardConfig
from caliper.data.rewards import CONVENTIONS, convention, converted
from caliper.errors import CaliperError, printable
from caliper.rollout.open_loop import replay_actions
from caliper.rollout.replay import state_fault

_NOISE_BINS = 4


def describe(path: str | Path, installed: Callable[[DatasetMeta], tuple[DatasetMeta, Any] | None]) -> str:
    """Describes a dataset file in lines of text.

    Args:
        path: the file.
        installed: from what a file says of itself, what the installed scene of its task needs, and that
            scene's MjModel (or None: states are not looked at); None if there is no such scene.

    Raises:
        CaliperError: the file is absent, damaged, or lacks what a dataset must have.
    """
    dataset = read_dataset(path, rewards=None)
    meta, recorded = dataset.meta, dataset.episodes
    found = convention([e.rewards for e in recorded])
    try:
        episodes, contrary = converted(recorded, dataset.demos, found or "success", "it"), None
    except CaliperError as error:
        episodes, contrary = list(recorded), str(error).removeprefix("it: ")
    successes = [e for e in episodes if e.success]
    reward = RewardConfig(gamma=CriticConfig.discount)
    rows = [
        ("task", meta.task),
        ("scene", meta.scene_hash),
        ("robot", meta.robot),
        *([("object", "its size is drawn anew in each episode")] if meta.draw_size else []),
        ("controller", f"{meta.controller}, {meta.action_dim}-D actions at {meta.control_freq} Hz"),
        ("actions", _meaning(meta, installed(meta))),
        ("states", f"{meta.state_dim} numbers, MuJoCo {meta.mujoco_version}"),
        ("horizon", f"{meta.horizon} steps"),
        ("collected by", f"{meta.collector}, seed {meta.seed}"),
        ("schema", str(meta.schema_version)),
        ("size", f"{Path(path).stat().st_size / 1e6:.2f} MB"),
        ("checksums", "right, of every episode" if dataset.sealed else "none: a changed byte would not show"),
        ("content", f"SHA-256 {dataset.content}"),
        ("episodes", f"{len(episodes)}, of which {_share(episodes)} succeed"),
        ("transitions", f"{dataset.num_transitions} ({dataset.num_frames} frames)"),
        ("length", _spread([len(e) for e in episodes])),
        ("  of successes", _spread([len(e) for e in successes])),
        ("rewards", f"{found}: {CONVENTIONS[found]}" if found else "of no known convention"),
        ("return", _spread([float(e.rewards.sum()) for e in recorded]) + " (undiscounted, raw)"),
        (
            "  discounted",
            _spread([_first_return(e, reward) for e in episodes])
            + f" (rewards {reward.scale:g} r {reward.bias:+g}, discount {reward.gamma:g})",
        ),
        *_by_noise(episodes),
        ("fits", _verdict(dataset, installed(meta), found, contrary)),
    ]
    return _lines(path, rows)


def replayed_lines(path: str | Path) -> Iterator[str]:
    """What the recorded actions lead to in the installed scene: a line for each demo, then their number.

    Raises:
        CaliperError: the file does not fit it.
    """
    dataset = read_dataset(path, rewards=None)
    found = installed(dataset.meta)
    if found is None:
        raise CaliperError(f"{path} is of {dataset.meta.task}, of which there is no installed scene")
    dataset.check(found[0])
    if fault := state_fault(dataset, found[1]):
        raise CaliperError(f"{path} can't be used: {fault}; collect it again")
    width = max(map(len, dataset.demos))
    left = []
    for replayed in replay_actions(dataset):
        left += [replayed.demo] * (replayed.left is not None)
        yield f"  {printable(replayed.demo):<{width}}  {replayed}"
    count = len(dataset.demos)
    yield f"  {count - len(left)} of {count} demos follow their recorded states under their actions alone"


def describe_minari(path: str | Path) -> str:
    """Describes the folder of a Minari dataset in lines of text, with rewards as they were recorded.

    Raises:
        CaliperError: the folder holds no such dataset, or a damaged one.
    """
    found = read_minari(path, dense=True)
    first, rewards = found.episodes[0], np.concatenate([e.rewards for e in found.episodes])
    rows = [
        ("environment", found.env_id or "not named in metadata.json"),
        ("observations", f"{first.obs.shape[1]} numbers"),
        ("actions", f"{first.actions.shape[1]} numbers"),
        (
            "episodes",
            f"{len(found.episodes)}, of which {sum(e.terminals[-1] for e in found.episodes)} terminate",
        ),
        ("transitions", f"{found.num_transitions} ({found.num_frames} frames)"),
        ("length", _spread([len(e.actions) for e in found.episodes])),
        ("reward", _spread(rewards.tolist()) + " (of a step, raw)"),
        ("return", _spread([float(e.rewards.sum()) for e in found.episodes]) + " (undiscounted, raw)"),
    ]
    return _lines(path, rows)


def _meaning(meta: DatasetMeta, installed: tuple[DatasetMeta, Any] | None) -> str:
    """Whether the file says what its actions mean, and the same as the installed controller does."""
    if not meta.action:
        return "the file does not say what they mean"
    if installed is not None and meta.action == installed[0].action:
        of = f"{meta.controller}" if meta.robot == "panda" else f"{meta.controller} with robot={meta.robot}"
        return f"mean what caliper tasks {meta.task} says of {of}"
    return f"mean, the file says, {meta.action}"


def _lines(path: str | Path, rows: Sequence[tuple[str, str]]) -> str:
    """Names and values, one a line, whatever a file says its task is called."""
    return "\n".join([printable(str(path)), *(f"  {name:<16}{printable(value)}" for name, value in rows)])


def _first_return(episode: Episode, reward: RewardConfig) -> float:
    scaled = reward.apply(torch.as_tensor(episode.rewards))
    terminals = torch.zeros_like(scaled)
    terminals[-1] = float(episode.terminated)
    return float(reward.returns(scaled, terminals)[0])


def _share(episodes: Sequence[Episode]) -> str:
    count = sum(e.success for e in episodes)
    return f"{count} ({count / len(episodes):.1%})"


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "none"
    low, median, high = np.quantile(values, (0, 0.5, 1))
    return f"{low:g} .. {high:g}, median {median:.4g}, mean {np.mean(values):.4g}"


def _by_noise(episodes: Sequence[Episode]) -> list[tuple[str, str]]:
    """A row for each level of action noise, or for each of a few ranges if there are many levels."""
    levels = sorted({e.noise for e in episodes})
    if len(levels) <= _NOISE_BINS:
        groups = [(f"{level:g}", [e for e in episodes if e.noise == level]) for level in levels]
    else:
        edges = np.linspace(levels[0], levels[-1], _NOISE_BINS + 1)
        bins = np.searchsorted(edges[1:-1], [e.noise for e in episodes], side="right")
        groups = [
            (
                f"{edges[i]:.2f} .. {edges[i + 1]:.2f}",
                [e for e, b in zip(episodes, bins, strict=True) if b == i],
            )
            for i in range(_NOISE_BINS)
        ]
    return [
        ("noise" if i == 0 else "", f"{name}: {len(group)} episodes, {_share(group)} succeed")
        for i, (name, group) in enumerate((name, group) for name, group in groups if group)
    ]


def _verdict(
    dataset: Dataset, installed: tuple[DatasetMeta, Any] | None, found: str | None, contrary: str | None
) -> str:
    if installed is None:
        return "unknown: there is no installed scene to compare with"
    expected, model = installed
    wrong, freq = dataset.mismatches(expected), dataset.meta.control_freq
    if not wrong and model is not None and (fault := state_fault(dataset, model)):
        wrong = [fault]
    if model is not None and round(1 / model.opt.timestep) % freq:
        wrong.append(f"{freq} Hz do not divide the physics' {1 / model.opt.timestep:.0f}")
    wrong += [contrary] if contrary else []
    if wrong:
        return f"no: {'; '.join(wrong)}"
    with_key = f", with data.rewards={found}" if found != "success" else ""
    other = dataset.meta.action not in ("", expected.action)
    return f"yes, the installed scene{with_key}" + ", but its actions mean something else there" * other
