"""A dataset's episodes to leaf through, in the scene they were recorded in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from caliper.config.build import make_envs, reward_config, run_scene, set_up_torch
from caliper.data.formats.recordings import is_foreign
from caliper.data.formats.robomimic import read_dataset
from caliper.envs.tasks import TASKS
from caliper.errors import CaliperError
from caliper.tools.replay import settings_of
from caliper.training.devices import choose_devices
from caliper.viewer.live import Images, pictures


class Recorded:
    """A dataset and the frame that is looked at.

    Attributes:
        model: the scene, an MjModel.
        dataset: what the file holds.
        episode: its number.
        frame: which of its t + 1 frames.
        state: float64 (s,), there.
    """

    def __init__(self, path: Path, words: list[str]) -> None:
        """Opens a file at its first frame.

        Args:
            path: the dataset.
            words: of a run, such as "task.size=128".

        Raises:
            CaliperError: it is no dataset of Caliper's, or of another scene than the installed one.
        """
        if is_foreign(path):
            raise CaliperError(
                f"{path} is a recording of another program; caliper import {path} makes a dataset"
            )
        self.dataset = read_dataset(path)
        meta = self.dataset.meta
        if meta.task not in TASKS:
            raise CaliperError(f"{path} is of task {meta.task}, which has no scene here")
        config = settings_of(self.dataset, words)
        self.config = choose_devices(config).applied(config)
        set_up_torch(self.config)
        self.model, self.env = run_scene(self.config).model, make_envs(self.config, 1)
        self.go(0, 0)

    def go(self, episode: int, frame: int) -> None:
        """Shows a frame of an episode; beyond its last frame, that one."""
        self.episode = episode
        found = self.dataset.episodes[episode]
        self.frame = min(frame, len(found))
        self.state = found.final_state if self.frame == len(found) else found.states[self.frame]
        self.env.set_state(torch.as_tensor(self.state[None], device=self.env.device))

    def __len__(self) -> int:
        """Control steps of the episode."""
        return len(self.dataset.episodes[self.episode])

    @property
    def outcome(self) -> str:
        """How the episode ended."""
        return "solved" if self.dataset.episodes[self.episode].success else "not solved"

    def images(self) -> Images:
        """What a policy would see, by camera, uint8 (h, w, 3) each."""
        return pictures(self.env.spec.single, self.env.frame())

    def returns(self) -> NDArray[np.float64]:
        """The episode's return from each step on, (t,), as training computes it."""
        found, reward = self.dataset.episodes[self.episode], reward_config(self.config)
        scaled = reward.apply(torch.as_tensor(found.rewards))
        terminal = torch.zeros_like(scaled)
        terminal[-1] = float(found.terminated)
        return np.asarray(reward.returns(scaled, terminal), float)
