"""TD3+BC (Fujimoto and Gu 2021, arXiv:2106.06860), TD3 (2018, arXiv:1802.09477) with a cloning term.

    a'       = clip(pibar(s') + clip(sigma eps, -c, c), -1, 1)
    y        = r + gamma (1 - d) min_e Qbar_e(s', a')
    L_Q      = sum_e mean (Q_e(s, a) - y)^2

and at every second update, at which alone the slow copies of the critics and of the policy move as well,

    lambda   = alpha / mean |Q_1(s, pi(s))|
    L_pi     = -lambda mean Q_1(s, pi(s)) + mean |pi(s) - a|^2 / |A|
    Qbar    <- (1 - tau) Qbar + tau Q
    pibar   <- (1 - tau) pibar + tau pi

lambda passes no gradient. The policy is deterministic, a tanh; noise is added to it when it explores. The
paper normalises states by the data's moments. Here proprioception comes centred and scaled and the encoders
normalise images, so that nothing shifts when online data come in. The cloning term stays as it is online.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from caliper.agents.actor import clone_loss
from caliper.agents.actor_critic import ActorCritic, ActorCriticConfig, Encoded
from caliper.agents.base import Info, Noise, polyak
from caliper.agents.nets import GaussianActor, MakeEncoder, Policy
from caliper.types import Batch, Obs


class TD3BC(ActorCritic):
    """TD3 held near the data; online it makes the same updates."""

    config: TD3BCConfig

    def build(self, make_encoder: MakeEncoder) -> None:
        """See `Agent.build`."""
        super().build(make_encoder)
        self.target_actor = copy.deepcopy(self.actor).requires_grad_(False)

    def make_actor(self, make_encoder: MakeEncoder) -> GaussianActor:
        """See `ActorCritic.make_actor`; the deviation is that of exploring."""
        cfg = self.config
        return GaussianActor(make_encoder, self.action_dim, cfg.actor_hidden, cfg.exploration_noise)

    def next_policy(self, next_obs: Obs) -> Policy:
        """See `ActorCritic.next_policy`; the slow copy."""
        pi: Policy = self.target_actor(next_obs)
        return pi

    def actor_loss(self, x: Encoded, pi: Policy) -> tuple[Tensor, Info]:
        """The first critic's value of the policy, brought to size alpha, against the cloning term."""
        q = self.critic(x.features.detach(), pi.mode()[:, None])[..., 0]  # (e, b)
        weight = self.config.alpha / q[0].abs().mean().detach()
        clone = clone_loss(pi, x.batch.action, "mse").mean()
        loss = clone / self.action_dim - weight * q[0].mean()
        info = {"actor/loss": loss, "actor/clone_loss": clone, "actor/weight": weight}
        return loss, info | {"critic/q_pi": q.amin(0).mean()}

    @torch.no_grad()
    def target(self, x: Encoded, noise: Noise) -> Tensor:
        """The Bellman target (b,): minimum over the target ensemble near the slow policy's action."""
        cfg = self.config
        offset = cfg.target_noise * self.normal(noise.eps_target, len(x.batch), 1)
        offset = offset.clamp(-cfg.target_noise_clip, cfg.target_noise_clip)  # (b, 1, a)
        action = (x.pi_next.mode()[:, None] + offset).clamp(-1.0, 1.0)
        return self.bellman(x.batch, self.target_critic(x.target_features, action)[..., 0].amin(0))

    def begin(self) -> None:
        """See `Agent.begin`; the slow policy starts from the cloned one, if there was cloning."""
        if self.updates == 0:
            self.target_actor.load_state_dict(self.actor.state_dict())
        super().begin()

    def follow(self) -> None:
        """See `Agent.follow`; where the policy waits, the slow copies do."""
        if self.acting:
            super().follow()
            polyak(list(self.target_actor.parameters()), list(self.actor.parameters()), self.config.tau)

    def losses(self, batch: Batch, noise: Noise) -> tuple[dict[str, Tensor], Info]:
        """See `Agent.losses`."""
        losses: dict[str, Tensor] = {}
        info: Info = {}
        with self.autocast():
            x = self.encode(batch, noise)
            if x.pi is not None:
                losses["actor"], info = self.actor_loss(x, x.pi)
            q = self.critic(x.features, batch.action[:, None])[..., 0]  # (e, b)
            losses["critic"], more = self.td_loss(q, self.target(x, noise))
        return losses, info | more

    def draw(self, batch: Batch, noise: Noise) -> Noise:
        """See `Agent.draw`."""
        noise = super().draw(batch, noise)
        return replace(noise, eps_target=self.normal(noise.eps_target, len(batch), 1))


@dataclass(kw_only=True)
class TD3BCConfig(ActorCriticConfig):
    """Keys of TD3+BC; the defaults are the paper's."""

    actor_lr: float = 3e-4  # Adam
    actor_every: int = 2  # updates of the critics per update of the actor and of all slow copies
    alpha: float = 2.5  # size of Q beside the cloning term in the actor's loss
    target_noise: float = 0.2  # sigma, added to the action that the target values
    target_noise_clip: float = 0.5  # c, the most of it
    exploration_noise: float = 0.1  # deviation of the actions tried online
