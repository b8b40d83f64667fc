"""Advantage-weighted actor-critic (Nair et al. 2020, arXiv:2006.09359): cloning of what does better than pi.

    A        = min_e Q_e(s, a) - min_e Q_e(s, a~),           a~ ~ pi(.|s)
    L_pi     = mean -w log pi(a|s),                          w = min(exp(A / lambda), w_max)
    y        = r + gamma (1 - d) min_e Qbar_e(s', a'),       a' ~ pi(.|s')
    L_Q      = sum_e mean (Q_e(s, a) - y)^2
    Qbar    <- (1 - tau) Qbar + tau Q

The policy is a Gaussian in the action space with tanh mean and one learned deviation for all states. The
bound w_max on the weights is not in the paper: it keeps a few transitions from drowning the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from caliper.agents import deviations
from caliper.agents.actor_critic import ActorCritic, ActorCriticConfig
from caliper.agents.base import DRAWN, Noise
from caliper.agents.nets import Gaussian, GaussianActor, Info, MakeEncoder, bc_loss, descend, polyak, td_loss
from caliper.encoders import augment
from caliper.limits import key
from caliper.types import Batch, Obs


class AWAC(ActorCritic):
    """Advantage-weighted actor-critic; online it makes the same updates."""

    config: AWACConfig

    def update(self, batch: Batch, noise: Noise = DRAWN) -> Info:
        """See `Agent.update`."""
        cfg, g = self.config, self.generator
        self.updates += 1
        if cfg.critic_encoder_from_bc and self.updates == 1:  # deviation
            deviations.start_encoders(self.actor, self.critic, self.target_critic)
        obs = augment(batch.obs, cfg.shift_pad, g, noise.shift)
        next_obs = augment(batch.next_obs, cfg.shift_pad, g, noise.shift_next)
        losses: dict[str, Tensor] = {}
        info: Info = {}
        with self.autocast:
            features = self.critic.encoder(obs)
            q = self.critic(features, batch.action[:, None])[..., 0]  # (e, b)
            if self.updates % self.actor_every == 0:
                pi = self.actor(obs)
                advantage, info = self.advantage(features, pi, q, noise)
                losses["actor"], more = self.actor_loss(pi, batch.action, advantage)
                info |= more
            losses["critic"], more = td_loss(q, self.td_target(batch, next_obs, noise))
            info |= more
        info |= descend(self.optimizers, losses)
        polyak(self.target_critic.parameters(), self.critic.parameters(), cfg.tau)
        if self.average_actor is not None:  # deviation
            polyak(self.average_actor.parameters(), self.actor.parameters(), cfg.actor_tau)
        return {name: value.detach() for name, value in info.items()}

    @torch.no_grad()
    def td_target(self, batch: Batch, next_obs: Obs, noise: Noise) -> Tensor:
        """The target y (b,): minimum over the target ensemble of one sample of the policy's value."""
        action, _ = self.actor(next_obs).sample(1, self.generator, noise.eps_target)
        value = self.target_critic(self.target_critic.encoder(next_obs), action)[..., 0].amin(0)
        y: Tensor = batch.reward + self.discount * (1.0 - batch.terminal) * value
        if self.config.mc_weight:  # deviation
            y = deviations.mix_return(y, batch.mc_return, self.config.mc_weight)
        return y

    @torch.no_grad()
    def advantage(self, features: Tensor, pi: Gaussian, q: Tensor, noise: Noise) -> tuple[Tensor, Info]:
        """A (b,): by how much the data's actions, of values q (e, b), beat one sample of the policy."""
        action, _ = pi.sample(1, self.generator, noise.eps_pi)
        q_pi = self.critic(features, action)[..., 0].amin(0)  # (b,)
        return q.amin(0) - q_pi, {"critic/q_pi": q_pi.mean()}

    def actor_loss(self, pi: Gaussian, action: Tensor, advantage: Tensor) -> tuple[Tensor, Info]:
        """L_pi on the recorded actions (b, a), each weighed by its `advantage` (b,)."""
        weight = (advantage / self.config.temperature).exp().clamp(max=self.config.max_weight)  # (b,)
        loss = -(weight * pi.log_prob(action)).mean()
        return loss, {
            "actor/loss": loss,
            "actor/bc_loss": bc_loss(pi, action).mean(),
            "actor/std": pi.log_std.exp().mean(),
            "actor/weight": weight.mean(),
            "actor/advantage": advantage.mean(),
        }

    def make_actor(self, make_encoder: MakeEncoder) -> GaussianActor:
        """See `ActorCritic.make_actor`."""
        return GaussianActor(make_encoder, self.action_dim, self.config.actor_hidden)


@dataclass(kw_only=True)
class AWACConfig(ActorCriticConfig):
    """Keys of AWAC."""

    actor_lr: float = key(3e-4, at_least=0, resume=True)  # Adam
    temperature: float = key(1.0, above=0, resume=True)  # lambda; small weighs sharply
    max_weight: float = key(100.0, at_least=0, resume=True)  # w_max, the largest weight of a recorded action
