"""Implicit Q-learning (Kostrikov et al. 2021, arXiv:2110.06169): no action but the data's is ever valued.

    u        = min_e Qbar_e(s, a) - V(s)
    L_V      = mean |x - 1(u < 0)| u^2                       x: the expectile
    L_pi     = mean -w log pi(a|s),                          w = min(exp(beta u), w_max)
    y        = r + gamma (1 - d) V(s')
    L_Q      = sum_e mean (Q_e(s, a) - y)^2
    Qbar    <- (1 - tau) Qbar + tau Q

V comes near the best value that the data's actions reach in s, as x comes near one. The policy is a Gaussian
in the action space with tanh mean and one learned deviation for all states.

Two things differ from the authors' code: the losses are taken at the same old parameters, as by every agent
here (theirs steps V first), and learning rates stay constant (the policy's falls along a cosine there, over a
number of updates that is known ahead; fine-tuning has none). V has an encoder of its own, as all networks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from caliper.agents.actor_critic import ActorCritic, ActorCriticConfig
from caliper.agents.base import Info, Noise
from caliper.agents.nets import GaussianActor, MakeEncoder, Policy, Value
from caliper.errors import CaliperError
from caliper.types import Batch


class IQL(ActorCritic):
    """Implicit Q-learning; online it makes the same updates."""

    config: IQLConfig

    def build(self, make_encoder: MakeEncoder) -> None:
        """See `Agent.build`."""
        if not 0 < self.config.expectile < 1:
            raise CaliperError(
                f"agent.expectile={self.config.expectile} makes no sense; it must lie between 0 and 1"
            )
        super().build(make_encoder)
        self.value = Value(make_encoder, self.config.critic_hidden)

    def make_actor(self, make_encoder: MakeEncoder) -> GaussianActor:
        """See `ActorCritic.make_actor`."""
        return GaussianActor(make_encoder, self.action_dim, self.config.actor_hidden)

    def groups(self) -> dict[str, tuple[list[nn.Parameter], float]]:
        """See `Agent.groups`."""
        return super().groups() | {"value": (list(self.value.parameters()), self.config.value_lr)}

    def value_loss(self, v: Tensor, q: Tensor) -> tuple[Tensor, Info]:
        """The expectile loss of V(s) (b,) on the values `q` (b,) of the data's actions."""
        u = q - v
        loss = ((self.config.expectile - (u < 0).float()).abs() * u.square()).mean()
        return loss, {"value/loss": loss, "value/v": v.mean()}

    def actor_loss(self, pi: Policy, action: Tensor, advantage: Tensor) -> tuple[Tensor, Info]:
        """Cloning of the recorded actions (b, a), each weighed by its `advantage` (b,)."""
        weight = (self.config.beta * advantage).exp().clamp(max=self.config.max_weight)  # (b,)
        loss, info = self.weighted_clone(pi, action, weight)
        return loss, info | {"actor/advantage": advantage.mean()}

    def begin(self) -> None:
        """See `Agent.begin`; V's encoder starts from the clone where the critics' does."""
        if self.config.critic_from_clone and self.updates == 0:
            self.value.encoder.load_state_dict(self.actor.encoder.state_dict())
        super().begin()

    def losses(self, batch: Batch, noise: Noise) -> tuple[dict[str, Tensor], Info]:
        """See `Agent.losses`."""
        losses: dict[str, Tensor] = {}
        action = batch.action[:, None]  # (b, 1, a)
        obs, next_obs = self.augment(batch.obs, noise.shift), self.augment(batch.next_obs, noise.shift_next)
        with self.autocast():
            with torch.no_grad():
                q_target = self.target_critic(self.target_critic.encode(obs), action)[..., 0].amin(0)  # (b,)
                target = self.bellman(batch, self.value(next_obs))
            v, features = self.value(obs), self.critic.encode(obs)
            losses["value"], info = self.value_loss(v, q_target)
            if self.acting:
                pi = self.actor(obs)
                losses["actor"], more = self.actor_loss(pi, batch.action, q_target - v.detach())
                with torch.no_grad():
                    q_pi = self.critic(features, pi.mode()[:, None]).amin(0).mean()
                info |= more | {"critic/q_pi": q_pi}
            losses["critic"], more = self.td_loss(self.critic(features, action)[..., 0], target)
        return losses, info | more


@dataclass(kw_only=True)
class IQLConfig(ActorCriticConfig):
    """Keys of IQL; the defaults are the paper's for locomotion (AntMaze: expectile 0.9, beta 10)."""

    actor_lr: float = 3e-4  # Adam
    value_lr: float = 3e-4  # Adam of V
    expectile: float = 0.7  # x; 0.5 = the mean, near 1 = the best action in the data
    beta: float = 3.0  # how sharply the advantage weighs; 0 = plain cloning
    max_weight: float = 100.0  # w_max, the largest weight of a recorded action
