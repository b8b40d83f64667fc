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

from caliper.agents import deviations
from caliper.agents.actor_critic import ActorCritic, ActorCriticConfig
from caliper.agents.base import DRAWN, Noise
from caliper.agents.nets import (
    Gaussian,
    GaussianActor,
    Info,
    MakeEncoder,
    Value,
    bc_loss,
    descend,
    polyak,
    td_loss,
)
from caliper.encoders import augment
from caliper.limits import key
from caliper.types import Batch, Obs


class IQL(ActorCritic):
    """Implicit Q-learning; online it makes the same updates."""

    config: IQLConfig

    def update(self, batch: Batch, noise: Noise = DRAWN) -> Info:
        """See `Agent.update`."""
        cfg, g = self.config, self.generator
        self.updates += 1
        if cfg.critic_encoder_from_bc and self.updates == 1:  # deviation
            deviations.start_encoders(self.actor, self.critic, self.target_critic, self.value)
        obs = augment(batch.obs, cfg.shift_pad, g, noise.shift)
        next_obs = augment(batch.next_obs, cfg.shift_pad, g, noise.shift_next)
        action = batch.action[:, None]  # (b, 1, a)
        losses: dict[str, Tensor] = {}
        with self.autocast:
            with torch.no_grad():
                q_target = self.target_critic(self.target_critic.encoder(obs), action)[..., 0].amin(0)  # (b,)
            v, features = self.value(obs), self.critic.encoder(obs)
            losses["value"], info = self.value_loss(v, q_target)
            if self.updates % self.actor_every == 0:
                pi = self.actor(obs)
                losses["actor"], more = self.actor_loss(pi, batch.action, q_target - v.detach())
                with torch.no_grad():
                    q_pi = self.critic(features, pi.mode()[:, None]).amin(0).mean()
                info |= more | {"critic/q_pi": q_pi}
            q = self.critic(features, action)[..., 0]  # (e, b)
            losses["critic"], more = td_loss(q, self.td_target(batch, next_obs))
            info |= more
        info |= descend(self.optimizers, losses)
        polyak(self.target_critic.parameters(), self.critic.parameters(), cfg.tau)
        if self.average_actor is not None:  # deviation
            polyak(self.average_actor.parameters(), self.actor.parameters(), cfg.actor_tau)
        return {name: value.detach() for name, value in info.items()}

    @torch.no_grad()
    def td_target(self, batch: Batch, next_obs: Obs) -> Tensor:
        """The target y (b,): V at s', no action."""
        y: Tensor = batch.reward + self.discount * (1.0 - batch.terminal) * self.value(next_obs)
        if self.config.mc_weight:  # deviation
            y = deviations.mix_return(y, batch.mc_return, self.config.mc_weight)
        return y

    def value_loss(self, v: Tensor, q: Tensor) -> tuple[Tensor, Info]:
        """L_V, the expectile loss of V(s) (b,) on the values `q` (b,) of the data's actions."""
        u = q - v
        loss = ((self.config.expectile - (u < 0).float()).abs() * u.square()).mean()
        return loss, {"value/loss": loss, "value/v": v.mean()}

    def actor_loss(self, pi: Gaussian, action: Tensor, advantage: Tensor) -> tuple[Tensor, Info]:
        """L_pi on the recorded actions (b, a), each weighed by its `advantage` (b,)."""
        weight = (self.config.beta * advantage).exp().clamp(max=self.config.max_weight)  # (b,)
        loss = -(weight * pi.log_prob(action)).mean()
        return loss, {
            "actor/loss": loss,
            "actor/bc_loss": bc_loss(pi, action).mean(),
            "actor/std": pi.log_std.exp().mean(),
            "actor/weight": weight.mean(),
            "actor/advantage": advantage.mean(),
        }

    def build(self, make_encoder: MakeEncoder) -> None:
        """See `Agent.build`."""
        super().build(make_encoder)
        self.value = Value(make_encoder, self.config.critic_hidden)

    def make_actor(self, make_encoder: MakeEncoder) -> GaussianActor:
        """See `ActorCritic.make_actor`."""
        return GaussianActor(make_encoder, self.action_dim, self.config.actor_hidden)

    def groups(self) -> dict[str, tuple[list[nn.Parameter], float]]:
        """See `Agent.groups`."""
        return super().groups() | {"value": (list(self.value.parameters()), self.config.value_lr)}


@dataclass(kw_only=True)
class IQLConfig(ActorCriticConfig):
    """Keys of IQL; the defaults are the paper's for locomotion (AntMaze: expectile 0.9, beta 10)."""

    actor_lr: float = key(3e-4, at_least=0, resume=True)  # Adam
    value_lr: float = key(3e-4, at_least=0, resume=True)  # Adam of V
    expectile: float = key(0.7, above=0, below=1, resume=True)  # x; near 1 = the best action in the data
    beta: float = key(3.0, at_least=0, resume=True)  # how sharply the advantage weighs; 0 = plain cloning
    max_weight: float = key(100.0, at_least=0, resume=True)  # w_max, the largest weight of a recorded action
