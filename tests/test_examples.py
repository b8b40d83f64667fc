"""The examples do what they say."""

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
