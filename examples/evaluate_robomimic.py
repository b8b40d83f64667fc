"""Trains BC of robomimic on a dataset of Caliper, and lets its policy act in Caliper's envs.

    pip install --no-deps robomimic==0.3.0 six psutil
    python examples/evaluate_robomimic.py FOLDER

The rest of what robomimic asks for (egl_probe, which draws) is not needed here, hence --no-deps. FOLDER then
holds the scripted expert's episodes of `lift`, the same with observations in numbers, and robomimic's
checkpoint.
"""

import argparse
import contextlib
from pathlib import Path
from typing import Any

import gymnasium
import robomimic.utils.file_utils as files
import torch
from robomimic.config import config_factory
from robomimic.scripts.train import train

import caliper
from caliper.tools.replay import replay_file

KEYS = ["robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos", "environment_state"]


def recorded(folder: Path, episodes: int) -> Path:
    """The scripted expert's episodes, with observations under the names that the env will give."""
    little_noise, path = "data.mixture=[[1.0,0.1,0.0]]", folder / "lift.hdf5"
    states = caliper.collect("task=lift", little_noise, data={"episodes": episodes, "path": path})
    return replay_file(states, folder / "lift_state.hdf5", ["task.obs=state"])


def cloned(folder: Path, data: Path, updates: int) -> Path:
    """The checkpoint that robomimic's own training leaves."""
    config = config_factory("bc")
    with config.values_unlocked():
        config.experiment.name = "lift"
        config.experiment.validate = config.experiment.rollout.enabled = False
        config.experiment.logging.log_tb = config.experiment.logging.terminal_output_to_txt = False
        config.experiment.epoch_every_n_steps = updates
        config.train.num_epochs = 1
        config.experiment.save.enabled, config.experiment.save.every_n_epochs = True, 1
        config.train.data, config.train.output_dir = str(data), str(folder / "robomimic")
        config.train.hdf5_load_next_obs = False
        config.train.seed = 0
        config.observation.modalities.obs.low_dim = KEYS
        config.observation.modalities.obs.rgb = []
        config.algo.optim_params.policy.learning_rate.initial = 1e-3
        config.algo.actor_layer_dims = [256, 256]
    config.lock()
    with (folder / "training.txt").open("w") as log, contextlib.redirect_stdout(log):
        train(config, device=torch.device("cpu"))
    (checkpoint,) = (folder / "robomimic").rglob("*.pth")
    return checkpoint


def evaluated(policy: Any, episodes: int) -> list[bool]:
    """Whether each episode was solved."""
    env = gymnasium.make("caliper/Lift-v0", obs="state", names="robomimic")
    solved = []
    for seed in range(10_000, 10_000 + episodes):  # starts that no recording has
        obs, _ = env.reset(seed=seed)
        policy.start_episode()
        ended = False
        while not ended:
            obs, _, terminated, truncated, info = env.step(policy({key: obs[key] for key in KEYS}))
            ended = terminated or truncated
        solved.append(bool(info["success"]))
    return solved


def main() -> None:
    """Records, trains, acts, and says how often that succeeds."""
    parser = argparse.ArgumentParser(description="robomimic's BC in Caliper's envs")
    parser.add_argument("folder", type=Path, help="where data and checkpoint go")
    parser.add_argument(
        "--checkpoint", type=Path, help="one of robomimic's, instead of recording and training"
    )
    parser.add_argument("--demos", type=int, default=100, help="episodes to record")
    parser.add_argument("--updates", type=int, default=1000, help="of the network")
    parser.add_argument("--episodes", type=int, default=50, help="to act in")
    told = parser.parse_args()
    told.folder.mkdir(parents=True, exist_ok=True)
    checkpoint = told.checkpoint or cloned(told.folder, recorded(told.folder, told.demos), told.updates)
    policy, _ = files.policy_from_checkpoint(ckpt_path=str(checkpoint), device=torch.device("cpu"))
    solved = evaluated(policy, told.episodes)
    print(f"{checkpoint} solves {sum(solved)} of {len(solved)} episodes")


if __name__ == "__main__":
    main()
