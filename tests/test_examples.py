"""The examples do what they say."""

import re

import pytest

from tests.own_environment import own_environment, run


@pytest.mark.slow
def test_stable_baselines3_trains_on_our_envs(tmp_path):
    python = own_environment(tmp_path / "env", "stable-baselines3")
    said = run(python, "examples/train_with_sb3.py", "--steps", "2000").splitlines()
    assert said[-3:] == [
        "PPO on make: 2000 steps, 80 epochs",
        "SAC on make_vec: 2000 steps, 450 updates",
        "PPO on make_vec: 2000 steps, 8 epochs",
    ]


@pytest.mark.slow
def test_a_policy_of_robomimic_acts_in_our_envs(tmp_path):
    """Cloned from the expert's episodes it solves nearly all; before any learning it solves none."""
    python = own_environment(tmp_path / "env", "--no-deps", "robomimic==0.3.0", "six", "psutil")
    example, few = "examples/evaluate_robomimic.py", ["--demos", "10", "--updates", "1", "--episodes", "10"]
    ignorant = run(python, example, str(tmp_path / "few"), *few).splitlines()[-1]
    assert ignorant.endswith("solves 0 of 10 episodes")
    said = run(python, example, str(tmp_path / "whole")).splitlines()[-1]
    solved = re.search(r"whole/robomimic/.*\.pth solves (\d+) of 50 episodes", said)
    assert solved and int(solved[1]) >= 45, said
