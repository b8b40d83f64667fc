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
paper normalises states by the data's moments, here `encoder.normalize=true` does: proprioception comes
centred and scaled and the encoders normalise images, but Gymnasium's observations come as they are. The
cloning term stays as it is online.
"""

from __future__ import annotations

import copy
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


class TD3BC(ActorCritic):
    """TD3 held near the data; online it makes the same updates.

    Attributes:
        target_actor: the slow copy of the policy.
    """

    config: TD3BCConfig

    def update(self, batch: Batch, noise: Noise = DRAWN) -> Info:
        """See `Agent.update`."""
        cfg, g = self.config, self.generator
        self.updates += 1
        if self.updates == 1:  # deviation: the actor may be a clone by now
            self.target_actor.load_state_dict(self.actor.state_dict())
        if cfg.critic_encoder_from_bc and self.updates == 1:  # deviation
            deviations.start_encoders(self.actor, self.critic, self.target_critic)
        obs = augment(batch.obs, cfg.shift_pad, g, noise.shift)
        next_obs = augment(batch.next_obs, cfg.shift_pad, g, noise.shift_next)
        actor_too = self.updates % self.actor_every == 0
        losses: dict[str, Tensor] = {}
        info: Info = {}
        with self.autocast:
            features = self.critic.encoder(obs)
            if actor_too:
                losses["actor"], info = self.actor_loss(self.actor(obs), features, batch.action)
            q = self.critic(features, batch.action[:, None])[..., 0]  # (e, b)
            losses["critic"], more = td_loss(q, self.td_target(batch, next_obs, noise))
            info |= more
        info |= descend(self.optimizers, losses)
        if actor_too:
            polyak(self.target_critic.parameters(), self.critic.parameters(), cfg.tau)
            polyak(self.target_actor.parameters(), self.actor.parameters(), cfg.tau)
            if self.average_actor is not None:  # deviation
                polyak(self.average_actor.parameters(), self.actor.parameters(), cfg.actor_tau)
        return {name: value.detach() for name, value in info.items()}

    @torch.no_grad()
    def td_target(self, batch: Batch, next_obs: Obs, noise: Noise) -> Tensor:
        """The target y (b,): minimum over the target ensemble near the slow policy's action."""
        cfg, mode = self.config, self.target_actor(next_obs).mode()[:, None]  # (b, 1, a)
        eps = noise.eps_target
        if eps is None:
            eps = torch.randn(mode.shape, generator=self.generator, device=mode.device)
        offset = (cfg.target_noise * eps).clamp(-cfg.target_noise_clip, cfg.target_noise_clip)
        action = (mode + offset).clamp(-1.0, 1.0)
        value = self.target_critic(self.target_critic.encoder(next_obs), action)[..., 0].amin(0)
        y: Tensor = batch.reward + self.discount * (1.0 - batch.terminal) * value
        if cfg.mc_weight:  # deviation
            y = deviations.mix_return(y, batch.mc_return, cfg.mc_weight)
        return y

    def actor_loss(self, pi: Gaussian, features: Tensor, action: Tensor) -> tuple[Tensor, Info]:
        """L_pi: the first critic's value of the policy, of size alpha, against cloning of `action` (b, a)."""
        q = self.critic(features.detach(), pi.mode()[:, None])[..., 0]  # (e, b)
        weight = self.config.alpha / q[0].abs().mean().detach()
        bc = bc_loss(pi, action).mean()
        loss = bc / self.action_dim - weight * q[0].mean()
        info = {"actor/loss": loss, "actor/bc_loss": bc, "actor/weight": weight}
        return loss, info | {"critic/q_pi": q.amin(0).mean()}

    def build(self, make_encoder: MakeEncoder) -> None:
        """See `Agent.build`."""
        super().build(make_encoder)
        self.target_actor = copy.deepcopy(self.actor).requires_grad_(False)

    def make_actor(self, make_encoder: MakeEncoder) -> GaussianActor:
        """See `ActorCritic.make_actor`; the deviation is that of exploring."""
        cfg = self.config
        return GaussianActor(make_encoder, self.action_dim, cfg.actor_hidden, cfg.exploration_noise)


@dataclass(kw_only=True)
class TD3BCConfig(ActorCriticConfig):
    """Keys of TD3+BC; the defaults are the paper's."""

    actor_lr: float = key(3e-4, at_least=0, resume=True)  # Adam
    actor_every: int = key(2, at_least=1)  # critics' updates per update of the actor and slow copies
    alpha: float = key(2.5, resume=True)  # size of Q beside the cloning term in the actor's loss
    target_noise: float = key(0.2, at_least=0, resume=True)  # sigma, added to the target's action
    target_noise_clip: float = key(0.5, at_least=0, resume=True)  # c, the most of it
    exploration_noise: float = key(0.1, above=0)  # deviation of the actions tried online
