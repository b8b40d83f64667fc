"""Soft actor-critic (Haarnoja et al. 2018, arXiv:1812.05905), the base of CQL and Cal-QL.

    y        = r + gamma (1 - d) max_k min_e Qbar_e(s', a'_k),   a'_k ~ pi(.|s')     (k = 1: plain SAC)
    L_Q      = sum_e mean (Q_e(s, a) - y)^2
    L_pi     = mean (alpha log pi(a~|s) - min_e Q_e(s, a~)),     a~ ~ pi(.|s)
    L_alpha  = -log alpha * mean (log pi(a~|s) + H)
    Qbar    <- (1 - tau) Qbar + tau Q

All losses are taken at the same old parameters, then every optimiser steps, then the target moves: the order
of the official Cal-QL code.

Beyond the published algorithm, off by default: `bc_weight` c > 0 holds the actor near the data as in TD3+BC
(Fujimoto and Gu 2021, arXiv:2106.06860), with Q brought to size one:

    L_pi     = mean (alpha log pi(a~|s)) - mean q / mean |q| + c mean clone_loss,  q = min_e Q_e(s, a~)

and during the first `actor_start` updates the actor is cloned while the critic learns, as in COG (Singh et
al. 2020, arXiv:2010.14500): an untrained critic, all its values small, would otherwise undo a warm start.
`clone_better_only` clones where the recorded return exceeds the critic's value of the policy's action, as
self-imitation does (Oh et al. 2018, arXiv:1806.05635). More in `caliper.agents.critic` and `actor_critic`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from caliper.agents.actor import clone_loss
from caliper.agents.actor_critic import ActorCritic, ActorCriticConfig, Encoded
from caliper.agents.base import Info, Noise
from caliper.agents.nets import MakeEncoder, Policy
from caliper.errors import CaliperError
from caliper.types import Batch


class SAC(ActorCritic):
    """Soft actor-critic with an ensemble of critics."""

    config: SACConfig
    clone_weight: Tensor

    def build(self, make_encoder: MakeEncoder) -> None:
        """See `Agent.build`."""
        cfg = self.config
        if cfg.autotune_entropy and cfg.init_temperature <= 0:
            raise CaliperError(
                "agent.init_temperature must be positive unless agent.autotune_entropy is false."
            )
        super().build(make_encoder)
        log_alpha = (
            math.log(cfg.init_temperature) if cfg.init_temperature > 0 else -math.inf
        )  # -inf: alpha is 0
        self.log_alpha = nn.Parameter(torch.tensor(log_alpha))
        self.target_entropy = -float(self.action_dim) if cfg.target_entropy is None else cfg.target_entropy
        self.cloning = False  # whether Q is kept out of the actor's loss now
        # On the device: a captured update reads it anew each time. No part of a checkpoint, being derived.
        self.register_buffer("clone_weight", torch.tensor(float(cfg.bc_weight)), persistent=False)

    def groups(self) -> dict[str, tuple[list[nn.Parameter], float]]:
        """See `Agent.groups`."""
        groups = super().groups()
        if self.config.autotune_entropy:
            groups["temperature"] = ([self.log_alpha], self.config.temperature_lr)
        return groups

    def temperature_loss(self, log_pi: Tensor) -> tuple[Tensor, Info]:
        """Pulls the entropy towards its target; `log_pi` (b, 1) of the actor's samples."""
        loss = -self.log_alpha * (log_pi.detach() + self.target_entropy).mean()
        return loss, {"temperature/loss": loss}

    def actor_loss(self, x: Encoded, pi: Policy, action: Tensor, log_pi: Tensor) -> tuple[Tensor, Info]:
        """The policy's loss on its samples `action` (b, 1, a) with log-densities `log_pi` (b, 1)."""
        q = self.policy_value(self.critic(x.features.detach(), action))  # (b, 1)
        entropy_term = (self.log_alpha.detach().exp() * log_pi).mean()
        clone = clone_loss(pi, x.batch.action, self.config.clone_loss)  # (b,)
        if self.config.clone_better_only and not self.cloning:
            returns = x.batch.mc_return
            clone = clone * ((returns > q.detach()[:, 0]) | returns.isinf())  # unknown is not worse
        clone = clone.mean()
        if self.cloning:
            loss = entropy_term + clone
        elif self.config.bc_weight or self.config.bc_weight_online:
            loss = entropy_term - q.mean() / q.abs().mean().detach() + self.clone_weight * clone
        else:
            loss = entropy_term - q.mean()
        info = {"actor/loss": loss, "actor/entropy": -log_pi.mean(), "actor/clone_loss": clone}
        return loss, info | {"critic/q_pi": q.mean()}

    def policy_value(self, q: Tensor) -> Tensor:
        """Hook: what the actor climbs, (b, k), of the critics' values (e, b, k)."""
        return q.amin(0)

    def target_value(self, q: Tensor, noise: Noise) -> Tensor:
        """Hook: what the target takes, (b, k), of the target critics' values (e, b, k)."""
        return q.amin(0)

    def n_targets(self) -> int:
        """Hook: how many actions at s' the target takes the best of now."""
        return self.config.n_target_actions

    @torch.no_grad()
    def target(self, x: Encoded, noise: Noise) -> Tensor:
        """The Bellman target (b,): minimum over the target ensemble, then maximum over sampled actions."""
        b = len(x.batch)
        action, log_pi = x.pi_next.sample(self.normal(noise.eps_target, b, self.n_targets()))
        q = self.target_critic(x.target_features, action)  # (e, b, k)
        value, best = self.target_value(q, noise).max(-1)  # (b,)
        if self.config.backup_entropy:
            value = value - self.log_alpha.exp() * log_pi.gather(1, best[:, None])[:, 0]
        return self.bellman(x.batch, value)

    def critic_loss(self, x: Encoded, target: Tensor, noise: Noise) -> tuple[Tensor, Info]:
        """The critics' whole loss; `noise` serves the sub-classes."""
        return self.td_loss(self.critic(x.features, x.batch.action[:, None])[..., 0], target)

    def begin(self) -> None:
        """See `Agent.begin`."""
        self.cloning = self.updates < self.config.actor_start
        self.clone_weight.fill_(self.bc_weight())
        super().begin()

    def phase(self) -> tuple[bool, ...]:
        """See `Agent.phase`."""
        return (*super().phase(), self.cloning)

    def losses(self, batch: Batch, noise: Noise) -> tuple[dict[str, Tensor], Info]:
        """See `Agent.losses`."""
        losses: dict[str, Tensor] = {}
        info = {"temperature/alpha": self.log_alpha.exp()}
        with self.autocast():
            x = self.encode(batch, noise)
            if x.pi is not None:
                action, log_pi = x.pi.sample(self.normal(noise.eps_pi, len(batch), 1))
                losses["actor"], more = self.actor_loss(x, x.pi, action, log_pi)
                info |= more
            losses["critic"], more = self.critic_loss(x, self.target(x, noise), noise)
            info |= more
        if self.acting and self.config.autotune_entropy:
            losses["temperature"], more = self.temperature_loss(log_pi)
            info |= more
        return losses, info

    def draw(self, batch: Batch, noise: Noise) -> Noise:
        """See `Agent.draw`."""
        b, k = len(batch), self.n_targets()
        return replace(
            super().draw(batch, noise),
            eps_pi=self.normal(noise.eps_pi, b, 1) if self.acting else None,
            eps_target=self.normal(noise.eps_target, b, k),
        )

    def bc_weight(self) -> float:
        """Weight of the cloning term now: after the switch it fades linearly to its online value."""
        offline, online = self.config.bc_weight, self.config.bc_weight_online
        if online is None or not self.online:
            return offline
        faded = self.online_updates / self.config.bc_fade_steps if self.config.bc_fade_steps else 1.0
        return offline + (online - offline) * min(faded, 1.0)


@dataclass(kw_only=True)
class SACConfig(ActorCriticConfig):
    """Keys of SAC; the defaults are the official Cal-QL code's with a single-action backup."""

    n_target_actions: int = 1  # actions sampled at s'; the target takes the best (1 = single-action backup)
    backup_entropy: bool = False  # subtract alpha log pi in the target
    autotune_entropy: bool = True  # learn alpha
    init_temperature: float = 1.0  # first alpha; 0 without autotune = no entropy term
    temperature_lr: float = 1e-4  # Adam
    target_entropy: float | None = None  # H; null = minus the number of action entries
    actor_start: int = 0  # updates before Q enters the actor's loss; until then the actor is cloned
    bc_weight: float = 0.0  # c, weight of the cloning term in the actor's loss
    bc_weight_online: float | None = None  # c after the switch; null = the same
    bc_fade_steps: int = 0  # updates over which c fades to its online value
    clone_better_only: bool = False  # once Q moves the actor, clone where the return exceeds Q(s, pi)
