"""Soft actor-critic (Haarnoja et al. 2018, arXiv:1812.05905), the base of CQL and Cal-QL.

    y        = r + gamma (1 - d) max_k min_e Qbar_e(s', a'_k),   a'_k ~ pi(.|s')     (k = 1: plain SAC)
    L_Q      = sum_e mean (Q_e(s, a) - y)^2
    L_pi     = mean (alpha log pi(a~|s) - min_e Q_e(s, a~)),     a~ ~ pi(.|s)
    L_alpha  = -log alpha * mean (log pi(a~|s) + H)
    Qbar    <- (1 - tau) Qbar + tau Q

All losses are taken at the same old parameters, then every optimiser steps, then the target moves: the order
of the official Cal-QL code. `docs/update.md` walks an update line by line. Lines marked `# deviation` are not
in the paper and off by default, see `caliper.agents.deviations`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from caliper.agents import deviations
from caliper.agents.actor_critic import ActorCritic, ActorCriticConfig
from caliper.agents.base import DRAWN, Noise
from caliper.agents.nets import Info, MakeEncoder, TanhGaussian, descend, polyak, td_loss
from caliper.encoders import augment
from caliper.errors import CaliperError
from caliper.limits import key
from caliper.types import Batch, Obs


@dataclass(frozen=True, slots=True)
class Encoded:
    """A batch after its images went once through each network that needs them.

    Attributes:
        batch: the transitions.
        obs: observations at s, their images shifted.
        sample: the policy at s, an action of it (b, 1, a) and its log-density (b, 1), with gradient; None
            where the update does not train the actor.
        pi_next: the policy at s', without gradient.
        features: the critic's features of s, with gradient, (b, f) or (e, b, f).
        target_features: the target critic's features of s', without.
    """

    batch: Batch
    obs: Obs
    sample: tuple[TanhGaussian, Tensor, Tensor] | None
    pi_next: TanhGaussian
    features: Tensor
    target_features: Tensor


class SAC(ActorCritic):
    """Soft actor-critic with an ensemble of critics.

    Attributes:
        log_alpha: the temperature's logarithm.
        target_entropy: H.
        n_target_actions: actions at s' of which the target takes the best.
        bc_term: the actor's loss where it also clones; None where that is off.
    """

    config: SACConfig
    over_critics: Callable[..., Tensor] = staticmethod(torch.amin)  # what the actor climbs of Q_e

    def update(self, batch: Batch, noise: Noise = DRAWN) -> Info:
        """See `Agent.update`."""
        cfg = self.config
        self.updates += 1
        if cfg.critic_encoder_from_bc and self.updates == 1:  # deviation
            deviations.start_encoders(self.actor, self.critic, self.target_critic)
        losses: dict[str, Tensor] = {}
        info = {"temperature/alpha": self.log_alpha.exp()}
        with self.autocast:
            x = self.encode(batch, noise)
            y = self.td_target(x, noise)
            losses["critic"], more = self.critic_loss(x, y, noise)
            info |= more
            if x.sample is not None:
                pi, action, log_pi = x.sample
                losses["actor"], more = self.actor_loss(x, pi, action, log_pi)
                info |= more
                if cfg.autotune_entropy:
                    losses["temperature"], more = self.temperature_loss(log_pi)
                    info |= more
        info |= descend(self.optimizers, losses)
        polyak(self.target_critic.parameters(), self.critic.parameters(), cfg.tau)
        if self.average_actor is not None:  # deviation
            polyak(self.average_actor.parameters(), self.actor.parameters(), cfg.actor_tau)
        if self.bc_term is not None and self.online:  # deviation
            self.bc_term.online_updates += 1
        return {name: value.detach() for name, value in info.items()}

    def encode(self, batch: Batch, noise: Noise) -> Encoded:
        """Each image once through each network; the actor at s, and a sample of it, where it is to learn."""
        pad, g = self.config.shift_pad, self.generator
        obs = augment(batch.obs, pad, g, noise.shift)
        next_obs = augment(batch.next_obs, pad, g, noise.shift_next)
        with torch.no_grad():
            pi_next, target_features = self.actor(next_obs), self.target_critic.encoder(next_obs)
        sample = None
        if self.updates % self.actor_every == 0:
            pi = self.actor(obs)
            sample = (pi, *pi.sample(1, g, noise.eps_pi))
        features = self.critic.encoder(obs)
        return Encoded(batch, obs, sample, pi_next, features, target_features)

    @torch.no_grad()
    def td_target(self, x: Encoded, noise: Noise) -> Tensor:
        """The target y (b,): minimum over the target ensemble, then maximum over the sampled actions."""
        action, log_pi = x.pi_next.sample(self.n_target_actions, self.generator, noise.eps_target)
        q = self.target_critic(x.target_features, action)  # (e, b, k)
        value, best = q.amin(0).max(-1)  # (b,)
        if self.config.backup_entropy:
            value = value - self.log_alpha.exp() * log_pi.gather(1, best[:, None])[:, 0]
        y: Tensor = x.batch.reward + self.discount * (1.0 - x.batch.terminal) * value
        if self.config.mc_weight:  # deviation
            y = deviations.mix_return(y, x.batch.mc_return, self.config.mc_weight)
        return y

    def critic_loss(self, x: Encoded, y: Tensor, noise: Noise) -> tuple[Tensor, Info]:
        """L_Q on the target y (b,); `noise` serves CQL."""
        return td_loss(self.critic(x.features, x.batch.action[:, None])[..., 0], y)

    def actor_loss(self, x: Encoded, pi: TanhGaussian, action: Tensor, log_pi: Tensor) -> tuple[Tensor, Info]:
        """L_pi on the policy's samples `action` (b, 1, a) with log-densities `log_pi` (b, 1)."""
        q = self.over_critics(self.critic(x.features.detach(), action), 0)  # (b, 1)
        entropy_term = (self.log_alpha.detach().exp() * log_pi).mean()
        bc = (torch.tanh(pi.mean) - x.batch.action).square().sum(-1).mean()  # only a metric
        loss = entropy_term - q.mean()
        info = {"actor/loss": loss, "actor/entropy": -log_pi.mean(), "actor/bc_loss": bc}
        if self.bc_term is not None:  # deviation
            only_bc = 0 < self.updates <= self.actor_start
            loss, more = self.bc_term.loss(x.batch, pi, q, entropy_term, only_bc, self.online)
            info |= more
        return loss, info | {"critic/q_pi": q.mean()}

    def temperature_loss(self, log_pi: Tensor) -> tuple[Tensor, Info]:
        """L_alpha, which pulls the entropy towards H; `log_pi` (b, 1) of the actor's samples."""
        loss = -self.log_alpha * (log_pi.detach() + self.target_entropy).mean()
        return loss, {"temperature/loss": loss}

    def build(self, make_encoder: MakeEncoder) -> None:
        """See `Agent.build`."""
        cfg = self.config
        if cfg.autotune_entropy and cfg.init_temperature <= 0:
            raise CaliperError(
                "agent.init_temperature must be positive unless agent.autotune_entropy is false."
            )
        super().build(make_encoder)
        alpha = cfg.init_temperature
        self.log_alpha = nn.Parameter(torch.tensor(math.log(alpha) if alpha > 0 else -math.inf))
        self.target_entropy = -float(self.action_dim) if cfg.target_entropy is None else cfg.target_entropy
        self.n_target_actions = cfg.n_target_actions
        self.actor_start = cfg.actor_start
        self.bc_term = deviations.BCTerm(cfg) if deviations.BCTerm.wanted(cfg) else None  # deviation

    def groups(self) -> dict[str, tuple[list[nn.Parameter], float]]:
        """See `Agent.groups`."""
        groups = super().groups()
        if self.config.autotune_entropy:
            groups["temperature"] = ([self.log_alpha], self.config.temperature_lr)
        return groups

    def train_state(self) -> dict[str, Any]:
        """See `Agent.train_state`."""
        counted = {} if self.bc_term is None else {"online_updates": self.bc_term.online_updates.clone()}
        return super().train_state() | counted

    def load_train_state(self, state: dict[str, Any]) -> None:
        """See `Agent.load_train_state`."""
        super().load_train_state(state)
        if self.bc_term is not None:  # deviation
            made = state.get("online_updates")  # absent where it is on only from now
            if made is not None:
                self.bc_term.online_updates.copy_(made)


@dataclass(kw_only=True)
class SACConfig(ActorCriticConfig, deviations.BCTermConfig):
    """Keys of SAC; the defaults are the official Cal-QL code's with a single-action backup."""

    n_target_actions: int = key(1, at_least=1, resume=True)  # the target takes the best of so many
    backup_entropy: bool = False  # subtract alpha log pi in the target
    autotune_entropy: bool = True  # learn alpha
    init_temperature: float = key(1.0, at_least=0)  # first alpha; 0 without autotune = no entropy term
    temperature_lr: float = key(1e-4, at_least=0, resume=True)  # Adam
    target_entropy: float | None = key(None, resume=True)  # H; null = minus the number of action entries
