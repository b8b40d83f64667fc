"""Q-chunking (Li, Zhou and Levine 2025, arXiv:2507.07969): the critics choose among chunks of a flow.

    L_flow   = mean |v(s, x_t, t) - (a - x_0)|^2 / |A|,          x_t = (1 - t) x_0 + t a
    pi(s)    = argmax_k mean_e Q_e(s, a_k),                      a_1 .. a_K: the flow's, from fresh noise
    y        = r + gamma^h (1 - d) mean_e Qbar_e(s', pi(s'))
    L_Q      = sum_e mean (Q_e(s, a) - y)^2
    Qbar    <- (1 - tau) Qbar + tau Q

An action is a chunk of h = `chunk` control steps, executed to its end; r is what they earn, discounted, and
s' where they lead. There is no actor that climbs Q: the flow clones the data's chunks, and the policy is the
best of K = `best_of` of them, when acting as in the target. With h = 1 and K = 4 it is the paper's BFN. Its
QC-FQL, in which a policy of one step takes the place of the choice, is `caliper.agents.fql` on chunks.

Otherwise than in the authors' code a chunk that success cuts short is kept, its last action repeated, where
theirs learns no value of it; and greedy choices are made from the same K draws everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from caliper.agents import deviations
from caliper.agents.actor_critic import ActorCritic
from caliper.agents.base import DRAWN, Decision, Noise
from caliper.agents.fql import OVER_CRITICS, FlowConfig
from caliper.agents.nets import (
    FlowPolicy,
    Info,
    MakeEncoder,
    VectorField,
    descend,
    flow_loss,
    polyak,
    td_loss,
)
from caliper.encoders import augment
from caliper.limits import key
from caliper.types import Batch, Obs


class QC(ActorCritic):
    """Q-chunking; online it makes the same updates.

    Attributes:
        draws: K, chunks among which the critics choose.
    """

    config: QCConfig

    def update(self, batch: Batch, noise: Noise = DRAWN) -> Info:
        """See `Agent.update`."""
        cfg, g = self.config, self.generator
        self.updates += 1
        if cfg.critic_encoder_from_bc and self.updates == 1:  # deviation
            deviations.start_encoders(self.actor, self.critic, self.target_critic)
        obs = augment(batch.obs, cfg.shift_pad, g, noise.shift)
        next_obs = augment(batch.next_obs, cfg.shift_pad, g, noise.shift_next)
        losses: dict[str, Tensor] = {}
        with self.autocast:
            y, info = self.td_target(batch, next_obs, noise)
            q = self.critic(self.critic.encoder(obs), batch.action[:, None])[..., 0]  # (e, b)
            losses["critic"], more = td_loss(q, y)
            info |= more
            if self.updates % self.actor_every == 0:
                losses["actor"] = self.cloning_loss(obs, batch.action, noise)
                info |= {"actor/loss": losses["actor"]}
        info |= descend(self.optimizers, losses)
        polyak(self.target_critic.parameters(), self.critic.parameters(), cfg.tau)
        if self.average_actor is not None:  # deviation
            polyak(self.average_actor.parameters(), self.actor.parameters(), cfg.actor_tau)
        return {name: value.detach() for name, value in info.items()}

    @torch.no_grad()
    def td_target(self, batch: Batch, next_obs: Obs, noise: Noise) -> tuple[Tensor, Info]:
        """The target y (b,): mean over the target ensemble at the chunk that the critics choose."""
        action, info = self.choose(self.actor(next_obs), self.critic.encoder(next_obs), noise.eps_target)
        q = self.target_critic(self.target_critic.encoder(next_obs), action[:, None])[..., 0]  # (e, b)
        value = OVER_CRITICS[self.config.q_agg](q, 0)
        y: Tensor = batch.reward + self.discount * (1.0 - batch.terminal) * value
        if self.config.mc_weight:  # deviation
            y = deviations.mix_return(y, batch.mc_return, self.config.mc_weight)
        return y, info

    def choose(self, flow: FlowPolicy, features: Tensor, eps: Tensor | None) -> tuple[Tensor, Info]:
        """Of K chunks per state the one (b, a) that the critics value most.

        Args:
            flow: at the b states.
            features: the critics', (b, f) or (e, b, f).
            eps: standard normal (b, k, a), or (1, k, a) for all states; None: fresh.
        """
        action, _ = flow.sample(self.draws, self.generator, eps)  # (b, k, a)
        q = OVER_CRITICS[self.config.q_agg](self.critic(features, action), 0)  # (b, k)
        best, at = q.max(1)
        chosen = action.gather(1, at[:, None, None].expand(-1, 1, self.action_dim))[:, 0]
        return chosen, {"critic/gain": (best - q.mean(1)).mean()}

    def cloning_loss(self, obs: Obs, action: Tensor, noise: Noise) -> Tensor:
        """L_flow, see `ActorCritic.cloning_loss`."""
        return flow_loss(self.actor(obs), action, self.generator, noise.eps_flow, noise.time)

    @torch.no_grad()
    def decide(self, obs: Obs, deterministic: bool) -> Decision:
        """See `Agent.decide`; greedily the best of the same draws at every observation."""
        eps = None
        if deterministic:
            g = torch.Generator(self.device).manual_seed(0)
            eps = torch.randn(1, self.draws, self.action_dim, generator=g, device=self.device)
        with self.autocast:
            flow, features = (self.average_actor or self.actor)(obs), self.critic.encoder(obs)
            action, _ = self.choose(flow, features, eps)
            if self.config.gripper_switch:  # deviation
                action = deviations.switched(action)
        return Decision(action, flow, features)

    def acting(self) -> tuple[str, ...]:
        """See `Agent.acting`."""
        return ("actor" if self.average_actor is None else "average_actor", "critic")

    def build(self, make_encoder: MakeEncoder) -> None:
        """See `Agent.build`."""
        super().build(make_encoder)
        self.draws = self.config.best_of

    def make_actor(self, make_encoder: MakeEncoder) -> VectorField:
        """See `ActorCritic.make_actor`: the flow."""
        return VectorField(make_encoder, self.action_dim, self.config.actor_hidden, self.config.flow_steps)


@dataclass(kw_only=True)
class QCConfig(FlowConfig):
    """Keys of Q-chunking; the defaults are the official code's."""

    chunk: int = key(5, at_least=1)  # h, control steps that an action covers; executed open loop
    best_of: int = key(32, at_least=1, resume=True)  # K, chunks of which the critics choose one
