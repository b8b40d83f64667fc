"""Trains SAC and PPO of Stable-Baselines3 on Caliper's envs.

    pip install stable-baselines3
    python examples/train_with_sb3.py --steps 2000

PPO takes one env from `gymnasium.make`. SAC takes four from `gymnasium.make_vec`, which step together in one
simulator; Stable-Baselines3 has a vector interface of its own, so they need the adapter below.
"""

import argparse
from typing import Any

import gymnasium
import numpy as np
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.vec_env import VecEnv

import caliper  # noqa: F401  # registers caliper/Lift-v0 and the others


class FromGymnasium(VecEnv):
    """A vector environment of Gymnasium (same-step autoreset) as Stable-Baselines3 wants it."""

    def __init__(self, env: Any) -> None:
        self.env = env
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> Any:
        """Observations of new episodes."""
        obs, _ = self.env.reset(seed=self._seeds[0])
        self._reset_seeds()
        return obs

    def step_async(self, actions: np.ndarray) -> None:
        """Keeps the actions for `step_wait`."""
        self.actions = actions

    def step_wait(self) -> Any:
        """Observations, rewards, dones, and a dict of information per env."""
        obs, rewards, terminated, truncated, infos = self.env.step(self.actions)
        told: list[dict[str, Any]] = [{"is_success": bool(s)} for s in infos["success"]]
        done = terminated | truncated
        for i in np.flatnonzero(done):
            told[i]["terminal_observation"] = infos["final_obs"][i]
            told[i]["TimeLimit.truncated"] = bool(truncated[i])
        return obs, rewards.astype(np.float32), done, told

    def close(self) -> None:
        """Closes the envs."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The same attribute for each env, for they are one object."""
        return [getattr(self.env, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Sets an attribute of all envs."""
        setattr(self.env, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Calls a method of all envs once."""
        return [getattr(self.env, method_name)(*args, **kwargs)]

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """No env is wrapped."""
        return [False] * len(list(self._get_indices(indices)))


def main() -> None:
    """Trains both and says how far they came."""
    parser = argparse.ArgumentParser(description="Stable-Baselines3 on Caliper's envs")
    parser.add_argument("--steps", type=int, default=2000, help="environment steps of each learner")
    steps = parser.parse_args().steps
    pixels: Any = {"names": "robomimic", "cameras": ["agentview"], "size": 36}

    single = gymnasium.make("caliper/Lift-v0", obs="state")
    check_env(single.unwrapped)
    ppo = PPO("MultiInputPolicy", single, n_steps=250, batch_size=50, seed=0, device="cpu")
    ppo.learn(steps)
    print(f"PPO on make: {ppo.num_timesteps} steps, {ppo._n_updates} epochs")

    many = FromGymnasium(gymnasium.make_vec("caliper/Lift-v0", num_envs=4, **pixels))
    sac = SAC(
        "MultiInputPolicy", many, buffer_size=2000, batch_size=32, learning_starts=200, seed=0, device="cpu"
    )
    sac.learn(steps)
    print(f"SAC on make_vec: {sac.num_timesteps} steps, {sac._n_updates} updates")

    ppo = PPO("MultiInputPolicy", many, n_steps=125, batch_size=50, n_epochs=2, seed=0, device="cpu")
    ppo.learn(steps)
    print(f"PPO on make_vec: {ppo.num_timesteps} steps, {ppo._n_updates} epochs")


if __name__ == "__main__":
    main()
