"""Soft actor-critic (Haarnoja et al. 2018, arXiv:1812.05905), the base of CQL and Cal-QL.

    y        = r + gamma (1 - d) max_k min_e Qbar_e(s', a'_k),   a'_k ~ pi(.|s')     (k = 1: plain SAC)
    L_Q      = sum_e mean (Q_e(s, a) - y)^2
    L_pi     = mean (alpha log pi(a~|s) - min_e Q_e(s, a~)),     a~ ~ pi(.|s)
    L_alpha  = -log alpha * mean (log pi(a~|s) + H)
    Qbar    <- (1 - tau) Qbar + tau Q

All losses are taken at the same old parameters, then every optimiser steps, then the target moves: the order
of the official Cal-QL code. Actor and critic own an encoder each; the target averages the critic's too.

Beyond the published algorithm, off by default: `bc_weight` c > 0 holds the actor near the data as in TD3+BC
(Fujimoto and Gu 2021, arXiv:2106.06860), with Q brought to size one:

    L_pi     = mean (alpha log pi(a~|s)) - mean q / mean |q| + c mean clone_loss,  q = min_e Q_e(s, a~)

and during the first `actor_start` updates the actor is cloned while the critic learns, as in COG (Singh et
al. 2020, arXiv:2010.14500): an untrained critic, all its values small, would otherwise undo a warm start.
`clone_better_only` clones where the recorded return exceeds the critic's value of the policy's action, as
self-imitation does (Oh et al. 2018, arXiv:1806.05635). `mc_weight` m mixes the recorded return into the
target, y <- (1 - m) y + m G. With `actor_tau` < 1 a moving average of the actor acts; with `best_of` K the
critic chooses among K samples of it (Ghasemipour et al. 2021, arXiv:2007.11091).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from caliper.agents.base import Agent, AgentConfig, Info, Noise, clone_loss, polyak
from caliper.agents.nets import Actor, Critic, MakeEncoder, TanhGaussian
from caliper.types import Batch, CaliperError, Obs


@dataclass(frozen=True, slots=True)
class Encoded:
    """A batch after its images went once through each network that needs them.

    Attributes:
        batch: the transitions.
        pi: the policy at s, with gradient.
        pi_next: the policy at s', without.
        features: the critic's features of s, with gradient, (b, f) or (e, b, f).
        target_features: the target critic's features of s', without.
    """

    batch: Batch
    pi: TanhGaussian
    pi_next: TanhGaussian
    features: Tensor
    target_features: Tensor


class SAC(Agent):
    """Soft actor-critic with an ensemble of critics."""

    has_critic = True
    config: SACConfig
    clone_weight: Tensor

    def build(self, make_encoder: MakeEncoder) -> None:
        """See `Agent.build`."""
        cfg = self.config
        if cfg.autotune_entropy and cfg.init_temperature <= 0:
            raise CaliperError(
                "agent.init_temperature must be positive unless agent.autotune_entropy is false."
            )
        self.actor = Actor(make_encoder, self.action_dim, cfg.actor_hidden)
        self.critic = Critic(
            make_encoder,
            self.action_dim,
            cfg.critic_hidden,
            cfg.n_critics,
            layer_norm=cfg.layer_norm,
            encoder_per_critic=cfg.encoder_per_critic,
        )
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.average_actor: Actor | None = None
        if cfg.actor_tau < 1:
            self.average_actor = copy.deepcopy(self.actor).requires_grad_(False)
        log_alpha = (
            math.log(cfg.init_temperature) if cfg.init_temperature > 0 else -math.inf
        )  # -inf: alpha is 0
        self.log_alpha = nn.Parameter(torch.tensor(log_alpha))
        self.target_entropy = -float(self.action_dim) if cfg.target_entropy is None else cfg.target_entropy
        self.updates = self.online_updates = 0
        self.cloning = False  # whether Q is kept out of the actor's loss now
        # On the device: a captured update reads it anew each time. No part of a checkpoint, being derived.
        self.register_buffer("clone_weight", torch.tensor(float(cfg.bc_weight)), persistent=False)

    def groups(self) -> dict[str, tuple[list[nn.Parameter], float]]:
        """See `Agent.groups`."""
        groups = {
            "actor": (list(self.actor.parameters()), self.config.actor_lr),
            "clone": (list(self.actor.parameters()), self.config.clone_lr),
            "critic": (list(self.critic.parameters()), self.config.critic_lr),
        }
        if self.config.autotune_entropy:
            groups["temperature"] = ([self.log_alpha], self.config.temperature_lr)
        return groups

    def temperature_loss(self, log_pi: Tensor) -> tuple[Tensor, Info]:
        """Pulls the entropy towards its target; `log_pi` (b, 1) of the actor's samples."""
        loss = -self.log_alpha * (log_pi.detach() + self.target_entropy).mean()
        return loss, {"temperature/loss": loss}

    def actor_loss(self, x: Encoded, action: Tensor, log_pi: Tensor) -> tuple[Tensor, Info]:
        """The policy's loss on its samples `action` (b, 1, a) with log-densities `log_pi` (b, 1)."""
        q = self.critic(x.features.detach(), action).amin(0)  # (b, 1)
        entropy_term = (self.log_alpha.detach().exp() * log_pi).mean()
        clone = clone_loss(x.pi, x.batch.action, self.config.clone_loss)  # (b,)
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

    @torch.no_grad()
    def target(self, x: Encoded, noise: Noise) -> Tensor:
        """The Bellman target (b,): minimum over the target ensemble, then maximum over sampled actions."""
        b = len(x.batch)
        action, log_pi = x.pi_next.sample(self.normal(noise.eps_target, b, self.config.n_target_actions))
        value, best = self.target_critic(x.target_features, action).amin(0).max(-1)  # (b,)
        if self.config.backup_entropy:
            value = value - self.log_alpha.exp() * log_pi.gather(1, best[:, None])[:, 0]
        discount = self.config.discount**self.config.chunk  # of as many control steps as an action covers
        y: Tensor = x.batch.reward + discount * (1.0 - x.batch.terminal) * value
        if not self.config.mc_weight:
            return y
        returns = torch.where(x.batch.mc_return.isinf(), y, x.batch.mc_return)  # unknown changes nothing
        return torch.lerp(y, returns, self.config.mc_weight)

    def td_loss(self, q: Tensor, target: Tensor) -> tuple[Tensor, Info]:
        """Squared Bellman error, mean over the batch, summed over the ensemble; q (e, b), target (b,)."""
        loss = (q - target).square().mean(1).sum()
        return loss, {"critic/td_loss": loss, "critic/q_data": q.mean(), "critic/target": target.mean()}

    def critic_loss(self, x: Encoded, target: Tensor, noise: Noise) -> tuple[Tensor, Info]:
        """The critics' whole loss; `noise` serves the sub-classes."""
        loss, info = self.td_loss(self.critic(x.features, x.batch.action[:, None])[..., 0], target)
        return loss, info | {"critic/loss": loss}

    def begin(self) -> None:
        """See `Agent.begin`."""
        if self.config.critic_from_clone and self.updates == 0:
            self.critic.start_from(self.actor.encoder)
            self.target_critic.start_from(self.actor.encoder)
        self.cloning = self.updates < self.config.actor_start
        self.clone_weight.fill_(self.bc_weight())
        self.updates += 1
        self.online_updates += self.online

    def phase(self) -> tuple[bool, ...]:
        """See `Agent.phase`."""
        return (*super().phase(), self.cloning)

    def losses(self, batch: Batch, noise: Noise) -> tuple[dict[str, Tensor], Info]:
        """See `Agent.losses`."""
        with self.autocast():
            x = self.encode(batch, noise)
            action, log_pi = x.pi.sample(self.normal(noise.eps_pi, len(batch), 1))
            actor, actor_info = self.actor_loss(x, action, log_pi)
            critic, critic_info = self.critic_loss(x, self.target(x, noise), noise)
        losses, info = {"actor": actor, "critic": critic}, actor_info | critic_info
        info["temperature/alpha"] = self.log_alpha.exp()
        if self.config.autotune_entropy:
            losses["temperature"], more = self.temperature_loss(log_pi)
            info |= more
        return losses, info

    def draw(self, batch: Batch, noise: Noise) -> Noise:
        """See `Agent.draw`."""
        b, k = len(batch), self.config.n_target_actions
        return replace(
            super().draw(batch, noise),
            shift_next=self.offsets(batch.next_obs, noise.shift_next),
            eps_pi=self.normal(noise.eps_pi, b, 1),
            eps_target=self.normal(noise.eps_target, b, k),
        )

    def follow(self) -> None:
        """See `Agent.follow`."""
        polyak(list(self.target_critic.parameters()), list(self.critic.parameters()), self.config.tau)
        self.average()

    def encode(self, batch: Batch, noise: Noise) -> Encoded:
        """Shifts the images at random and runs each network's encoder once."""
        obs, next_obs = self.augment(batch.obs, noise.shift), self.augment(batch.next_obs, noise.shift_next)
        with torch.no_grad():
            pi_next, target_features = self.actor(next_obs), self.target_critic.encode(next_obs)
        return Encoded(batch, self.actor(obs), pi_next, self.critic.encode(obs), target_features)

    def bc_weight(self) -> float:
        """Weight of the cloning term now: after the switch it fades linearly to its online value."""
        offline, online = self.config.bc_weight, self.config.bc_weight_online
        if online is None or not self.online:
            return offline
        faded = self.online_updates / self.config.bc_fade_steps if self.config.bc_fade_steps else 1.0
        return offline + (online - offline) * min(faded, 1.0)

    def clone(self, batch: Batch) -> Info:
        """See `Agent.clone`; has an optimiser of its own, so that the actor's moments stay untouched."""
        with self.autocast():
            pi = self.actor(self.augment(batch.obs, None))
        loss = clone_loss(pi, batch.action, self.config.clone_loss).mean()
        info = {"clone/loss": loss.detach()} | self.descend({"clone": loss})
        self.average()
        return info

    def average(self) -> None:
        """Moves the averaged actor, if there is one, towards the actor."""
        if self.average_actor:
            average, actor = list(self.average_actor.parameters()), list(self.actor.parameters())
            polyak(average, actor, self.config.actor_tau)

    def policy(self, obs: Obs) -> TanhGaussian:
        """See `Agent.policy`; the averaged actor's."""
        pi: TanhGaussian = (self.average_actor or self.actor)(obs)
        return pi

    @torch.no_grad()
    def act(self, obs: Obs, deterministic: bool) -> Tensor:
        """See `Agent.act`; of `best_of` samples the one of highest value; greedily the mode is one."""
        k = self.config.best_of
        if k < 2:
            return super().act(obs, deterministic)
        # Greedy actions come from the same draws every time, so that evaluating changes no later number.
        g = torch.Generator(self.device).manual_seed(0) if deterministic else self.generator
        eps = torch.randn(
            1 if deterministic else len(obs), k, self.action_dim, generator=g, device=self.device
        )
        with self.autocast():
            pi = self.policy(obs)
            action, _ = pi.sample(eps)
            if deterministic:
                action[:, 0] = pi.mode()
            best = self.critic(self.critic.encode(obs), action).amin(0).argmax(1)  # (n,)
        return action.gather(1, best[:, None, None].expand(-1, 1, self.action_dim))[:, 0]

    @torch.no_grad()
    def q_values(self, obs: Obs, action: Tensor) -> Tensor:
        """See `Agent.q_values`."""
        with self.autocast():
            q: Tensor = self.critic(self.critic.encode(obs), action[:, None])
        return q[..., 0].amin(0)

    def train_state(self) -> dict[str, Any]:
        """See `Agent.train_state`."""
        return super().train_state() | {"updates": self.updates, "online_updates": self.online_updates}

    def load_train_state(self, state: dict[str, Any]) -> None:
        """See `Agent.load_train_state`."""
        super().load_train_state(state)
        self.updates, self.online_updates = state["updates"], state["online_updates"]


@dataclass(kw_only=True)
class SACConfig(AgentConfig):
    """Keys of SAC; the defaults are the official Cal-QL code's with a single-action backup."""

    critic_hidden: Sequence[int] = (256, 256)  # widths of the critics' hidden layers
    critic_lr: float = 3e-4  # Adam
    n_critics: int = 2  # members of the Q ensemble
    layer_norm: bool = False  # LayerNorm before each ReLU of the critics
    encoder_per_critic: bool = False  # each Q has its own encoder instead of one for the ensemble
    discount: float = 0.99  # gamma
    tau: float = 0.005  # speed of the target's moving average
    n_target_actions: int = 1  # actions sampled at s'; the target takes the best (1 = single-action backup)
    backup_entropy: bool = False  # subtract alpha log pi in the target
    autotune_entropy: bool = True  # learn alpha
    init_temperature: float = 1.0  # first alpha; 0 without autotune = no entropy term
    temperature_lr: float = 1e-4  # Adam
    target_entropy: float | None = None  # H; null = minus the number of action entries
    actor_start: int = 0  # updates before Q enters the actor's loss; until then the actor is cloned
    critic_from_clone: bool = False  # the critic's encoder starts from the actor's at the first update
    bc_weight: float = 0.0  # c, weight of the cloning term in the actor's loss
    bc_weight_online: float | None = None  # c after the switch; null = the same
    bc_fade_steps: int = 0  # updates over which c fades to its online value
    clone_better_only: bool = False  # once Q moves the actor, clone where the return exceeds Q(s, pi)
    mc_weight: float = 0.0  # m, share of the recorded return in the target
    actor_tau: float = 1.0  # speed of the averaged actor, which acts; 1 = the actor itself acts
    best_of: int = 1  # K, actions sampled when acting, of which the critic takes the best
