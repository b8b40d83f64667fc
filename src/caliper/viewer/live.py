"""One episode under way, moved by a policy or by actions from elsewhere, and what it has been so far."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from caliper.agents import Agent
from caliper.config.build import collect_seeds, eval_seeds, make_envs, reward_config, run_scene
from caliper.config.schema import RunConfig
from caliper.data.dataset import Episode
from caliper.envs.checked import CheckedEnv
from caliper.errors import CaliperError
from caliper.policies.policy import Policy
from caliper.rollout.episodes import ActionQueue
from caliper.types import Obs, ObsSpec

Images = dict[str, NDArray[np.uint8]]


class Live:
    """An env and its running episode; episodes are numbered from 0.

    A policy plays the episodes that evaluations play; others have seeds of datasets, which never meet them.

    Attributes:
        model: the scene, an MjModel.
        state: float64 (s,), now; after the end, where the last action led.
        episode: its number.
        outcome: how the episode ended; "" while it goes on.
        q: at each step, what the critic says of what the policy would do; empty without a critic, which an
            exported policy lacks.
        success: whether it ended in success.
    """

    def __init__(self, config: RunConfig, agent: Agent | Policy | None = None) -> None:
        """Starts episode 0.

        Args:
            config: of the run, or of the scene alone.
            agent: a run's agent or an exported policy; without one, actions come from elsewhere.

        Raises:
            CaliperError: the task has no scene of Caliper's own.
        """
        require_scene(config)
        self.config, self.agent = config, agent
        self.model = run_scene(config).model
        self.env = CheckedEnv(make_envs(config, 1))
        chunk = agent.config.chunk if isinstance(agent, Agent) else 1  # an exported policy counts by itself
        self._queue = ActionQueue(1, chunk, self.env.action_dim, self.env.device)
        self.restart(0)

    def restart(self, episode: int) -> None:
        """Starts an episode by its number, and forgets the one under way."""
        self.episode = episode
        if self.agent is None:
            self.seed = collect_seeds(self.config)[0] + episode
        else:
            self.seed = eval_seeds(self.config, 1)[0] + episode
        self.obs = self.env.reset(seeds=torch.tensor([self.seed], device=self.env.device))
        self.state = self.env.get_state()[0].cpu().numpy()
        self.outcome, self.success, self.diverged = "", False, False
        self.q: list[float] = []
        self._states: list[NDArray[np.float64]] = []
        self._actions: list[NDArray[np.float32]] = []
        self._rewards: list[float] = []
        self._queue.clear()
        if isinstance(self.agent, Policy):
            self.agent.reset()

    def __len__(self) -> int:
        return len(self._actions)

    @torch.no_grad()
    def advance(self, action: Tensor | None = None) -> None:
        """Makes a control step; after the end, none.

        Args:
            action: float (a,) in [-1, 1]; None asks the policy.
        """
        if self.outcome:
            return
        if action is None:
            action = self._decided()
        self._states.append(self.state)
        self._actions.append(action.float().cpu().numpy())
        step = self.env.step(action[None].to(self.env.device))
        self._rewards.append(float(step.reward))
        self.state = self.env.final_state[0].cpu().numpy().copy()
        self.obs = step.final_obs
        self.diverged = bool(step.diverged)
        if self.diverged:
            self.outcome = "the physics blew up"
        elif step.terminated:
            self.success, self.outcome = True, "solved"
        elif step.truncated:
            self.outcome = "not solved in time"

    def _decided(self) -> Tensor:
        """What the policy does now, (a,)."""
        if isinstance(self.agent, Policy):
            images = self.obs.images if self.agent.views else None
            return torch.as_tensor(self.agent.act(images, self.obs.proprio))[0]
        assert self.agent is not None
        decided = self.agent.act(self.obs, deterministic=True)  # (1, h a)
        if self.agent.has_critic:
            self.q.append(float(self.agent.q_values(self.obs, decided)))
        return self._queue.next(decided)[0]

    def images(self) -> Images:
        """What the policy sees, by camera, uint8 (h, w, 3) each."""
        return pictures(self.env.spec, self.obs)

    def returns(self) -> NDArray[np.float64]:
        """The return from each step on (t,), of which Q is an estimate.

        While the episode goes on, the critic's newest value stands for what is still to come; without a
        critic the return is not known then, NaN.
        """
        reward = reward_config(self.config)
        scaled = reward.apply(torch.tensor(self._rewards))
        if not self.outcome:
            if not self.q:
                return np.full(len(self), np.nan)
            found = [self.q[-1]]
            for one in reversed(scaled[:-1].tolist()):
                found.append(one + reward.gamma * found[-1])
            return np.array(found[::-1])
        terminal = torch.zeros_like(scaled)
        terminal[-1] = float(self.success)
        return np.asarray(reward.returns(scaled, terminal), float)

    def recorded(self) -> Episode:
        """The episode so far, as a dataset holds it.

        Raises:
            CaliperError: nothing has happened in it, or its physics blew up.
        """
        if not len(self) or self.diverged:
            why = "its physics blew up" if self.diverged else "nothing has happened in it yet"
            raise CaliperError(f"this episode cannot be saved: {why}")
        rewards = np.zeros(len(self), np.float32)
        rewards[-1] = float(self.success)
        return Episode(
            states=np.stack(self._states),
            final_state=self.state,
            actions=np.stack(self._actions),
            rewards=rewards,
            terminated=self.success,
            success=self.success,
            seed=self.seed,
            noise=0.0,
        )


def require_scene(config: RunConfig) -> None:
    """Raises CaliperError if the task is an environment of another library."""
    if config.task.env_id is not None or config.task.env is not None:
        raise CaliperError(
            f"task={config.task.name} has no scene of Caliper's own, which the viewer could show"
        )


def pictures(spec: ObsSpec, obs: Obs) -> Images:
    """The newest colour image of each camera in the first observation, uint8 (h, w, 3)."""
    found = {}
    for name, plane in spec.planes.items():
        if plane.kind == "pixels":
            for view, camera in enumerate(plane.cameras):
                image = obs.images[name][0, view, -3:].permute(1, 2, 0)
                found[spec.cameras[camera]] = np.ascontiguousarray(image.cpu().numpy())
    return found
