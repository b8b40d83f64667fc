"""Flow Q-learning (Park, Li and Levine 2025, arXiv:2502.02538): a flow that clones, and a policy of one step.

    L_flow   = mean |v(s, x_t, t) - (a - x_0)|^2 / |A|,          x_t = (1 - t) x_0 + t a
    L_pi     = mean_b,e -Q_e(s, clip mu(s, z)) + alpha mean |mu(s, z) - flow(s, z)|^2 / |A|,     z ~ N(0, I)
    y        = r + gamma (1 - d) mean_e Qbar_e(s', clip mu(s', z'))
    L_Q      = sum_e mean (Q_e(s, a) - y)^2
    Qbar    <- (1 - tau) Qbar + tau Q

The velocity v only clones; flow(s, z) is where it leads noise z in `flow_steps` steps, clipped. mu makes an
action of noise at once: it is held near the flow and climbs the critics, and no gradient has to pass through
the steps. So the policy can have several modes, as the data may. With `chunk` 5 and alpha 100 it is QC-FQL
of the Q-chunking paper, see `caliper.agents.qc`.

The authors' losses and constants. Otherwise than in their code losses are summed over the ensemble, which
Adam makes nothing of; layers are Caliper's (ReLU, LayerNorm before it); and the greedy action is mu(s, 0).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from caliper.agents import deviations
from caliper.agents.actor_critic import ActorCritic, ActorCriticConfig
from caliper.agents.base import DRAWN, Noise
from caliper.agents.nets import (
    FlowPolicy,
    Info,
    MakeEncoder,
    VectorField,
    descend,
    flow_loss,
    polyak,
    td_loss,
    trained,
)
from caliper.encoders import augment
from caliper.limits import key
from caliper.types import Batch, Obs

# What counts of the ensemble's values.
OVER_CRITICS: dict[str, Callable[..., Tensor]] = {"mean": torch.mean, "min": torch.amin}


class FQL(ActorCritic):
    """Flow Q-learning; online it makes the same updates.

    Attributes:
        flow: the velocity v, a network of its own beside the actor mu.
    """

    config: FQLConfig

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
            if self.updates % self.actor_every == 0:
                flow = self.flow(obs)
                losses["flow"] = flow_loss(flow, batch.action, g, noise.eps_flow, noise.time)
                losses["actor"], info = self.actor_loss(self.actor(obs), flow, features, batch.action, noise)
                info |= {"flow/loss": losses["flow"]}
            q = self.critic(features, batch.action[:, None])[..., 0]  # (e, b)
            losses["critic"], more = td_loss(q, self.td_target(batch, next_obs, noise))
        info |= more | descend(self.optimizers, losses)
        polyak(self.target_critic.parameters(), self.critic.parameters(), cfg.tau)
        if self.average_actor is not None:  # deviation
            polyak(self.average_actor.parameters(), self.actor.parameters(), cfg.actor_tau)
        return {name: value.detach() for name, value in info.items()}

    @torch.no_grad()
    def td_target(self, batch: Batch, next_obs: Obs, noise: Noise) -> Tensor:
        """The target y (b,): mean over the target ensemble of one sample of the policy's value."""
        action, _ = self.actor(next_obs).sample(1, self.generator, noise.eps_target)
        q = self.target_critic(self.target_critic.encoder(next_obs), action)[..., 0]  # (e, b)
        value = OVER_CRITICS[self.config.q_agg](q, 0)
        y: Tensor = batch.reward + self.discount * (1.0 - batch.terminal) * value
        if self.config.mc_weight:  # deviation
            y = deviations.mix_return(y, batch.mc_return, self.config.mc_weight)
        return y

    def actor_loss(
        self, pi: FlowPolicy, flow: FlowPolicy, features: Tensor, action: Tensor, noise: Noise
    ) -> tuple[Tensor, Info]:
        """L_pi of mu at s; `action` (b, a), the recorded one, serves a metric."""
        distill, mine = self.distillation(pi, flow, noise.eps_pi)
        mine = mine.clamp(-1.0, 1.0)
        q = self.critic(features.detach(), mine).mean(0)  # (b, 1)
        climb = -q.mean()
        if self.config.normalize_q:
            climb = climb / q.abs().mean().detach()
        loss = climb + self.config.alpha * distill
        return loss, {
            "actor/loss": loss,
            "actor/distill_loss": distill,
            "actor/bc_loss": (mine[:, 0] - action).square().sum(-1).mean(),
            "critic/q_pi": q.mean(),
        }

    def distillation(self, pi: FlowPolicy, flow: FlowPolicy, z: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean squared distance of mu(s, z) from the flow's action, and mu(s, z) (b, 1, a), not clipped."""
        if z is None:
            shape = (len(pi.features), 1, self.action_dim)
            z = torch.randn(shape, generator=self.generator, device=self.device)
        with torch.no_grad():
            theirs, _ = flow.sample(eps=z)
        mine = pi.field.push(pi.features, z)
        return (mine - theirs).square().mean(), mine

    def cloning_loss(self, obs: Obs, action: Tensor, noise: Noise) -> Tensor:
        """See `ActorCritic.cloning_loss`; the flow learns the data, and mu the flow."""
        flow = self.flow(obs)
        loss = flow_loss(flow, action, self.generator, noise.eps_flow, noise.time)
        return loss + self.distillation(self.actor(obs), flow, noise.eps_pi)[0]

    def build(self, make_encoder: MakeEncoder) -> None:
        """See `Agent.build`."""
        super().build(make_encoder)
        self.flow = VectorField(
            make_encoder, self.action_dim, self.config.actor_hidden, self.config.flow_steps
        )

    def make_actor(self, make_encoder: MakeEncoder) -> VectorField:
        """See `ActorCritic.make_actor`."""
        return VectorField(make_encoder, self.action_dim, self.config.actor_hidden, steps=0)

    def groups(self) -> dict[str, tuple[list[nn.Parameter], float]]:
        """See `Agent.groups`."""
        cfg, flow = self.config, trained(self.flow)
        both = (flow + trained(self.actor), cfg.bc_lr)
        return super().groups() | {"flow": (flow, cfg.actor_lr), "bc": both}


@dataclass(kw_only=True)
class FlowConfig(ActorCriticConfig):
    """Keys of every agent with a flow; the defaults are those of both papers' code."""

    actor_hidden: Sequence[int] = key((512, 512, 512, 512), at_least=1)  # of the flow and of the actor
    critic_hidden: Sequence[int] = key((512, 512, 512, 512), at_least=1)  # of the critics
    actor_lr: float = key(3e-4, at_least=0, resume=True)  # Adam of the flow and of the actor
    layer_norm: bool = True  # LayerNorm before each ReLU of the critics
    flow_steps: int = key(10, at_least=1)  # Euler steps from noise to an action
    q_agg: str = key("mean", choices=("mean", "min"), resume=True)  # over the critics


@dataclass(kw_only=True)
class FQLConfig(FlowConfig):
    """Keys of FQL."""

    alpha: float = key(10.0, at_least=0, resume=True)  # how hard the flow holds the actor
    normalize_q: bool = key(False, resume=True)  # divide Q by its mean size in the actor's loss
