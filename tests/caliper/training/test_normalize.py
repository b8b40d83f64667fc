"""encoder.normalize=true: a run takes the moments of its recorded frames, and keeps them."""

import pytest
import torch

from caliper.agents import build_agent
from caliper.config.build import make_envs
from caliper.config.compose import load
from caliper.data.buffer import ReplayBuffer
from caliper.data.formats.robomimic import read_dataset
from caliper.data.returns import RewardConfig
from caliper.errors import CaliperError
from caliper.tools.saved_run import evaluate_run
from caliper.training.checkpoint import load_checkpoint
from caliper.training.data import load_data
from caliper.training.run import _fit_encoders, resume, train
from caliper.types import ObsSpec

WORDS = ["obs=state", "encoder=state", "encoder.normalize=true"]


def test_moments_are_those_of_the_recorded_frames_and_stay(configure, tmp_path, no_report):
    folder = tmp_path / "run"
    config = configure(*WORDS, f"run_dir={folder}", "online.env_steps=16", agent="td3bc")
    train(config)
    frames = load_data(config, read_dataset(config.data.path), None, make_envs(config, 2)).proprio()
    assert len(frames) > 20 and (frames.std(0) > 1e-3).any()

    def check():
        weights, _ = load_checkpoint(folder)
        means = {name: value for name, value in weights.items() if name.endswith("encoder.mean")}
        assert len(means) >= 4  # actor, critic, and a slow copy of each
        for name, mean in means.items():
            torch.testing.assert_close(mean, frames.mean(0))
            spread = weights[name.removesuffix("mean") + "spread"]
            torch.testing.assert_close(spread, frames.std(0, correction=0) + 1e-3)

    check()
    resume(folder, load(folder / "config.yaml", ["online.env_steps=28"], "resume"))
    check()
    assert evaluate_run(folder, load(folder / "config.yaml")).episodes == 2


def test_without_recorded_frames_there_are_no_moments():
    spec = ObsSpec((), 1, 2)
    agent = build_agent({"name": "sac"}, {"name": "state", "normalize": True}, spec, 1, "cpu", 0)
    nothing = ReplayBuffer(2, spec, 1, RewardConfig(gamma=0.97))
    with pytest.raises(CaliperError, match=r"there are none; set encoder\.normalize=false, or name"):
        _fit_encoders(agent, nothing)
