"""QT-Opt (Kalashnikov et al. 2018, arXiv:1806.10293) in its algorithm: Q-learning without an actor.

    pi(s)    = argmax_a Q(s, a), searched with the cross-entropy method
    y        = r + gamma (1 - d) min_e Qbar_e(s', a*),    a* = argmax_a Qbar_1(s', a)
    L_Q      = sum_e mean (Q_e(s, a) - y)^2

The search draws actions from a Gaussian, clips them to the box, and fits the Gaussian to the few of highest
value; after the last fit it takes the best of these or their mean, whichever is worth more. An image is
encoded once however many actions are valued. When acting, an action's value is the minimum over the critics;
greedy actions come from the same draws every time, exploring ones are samples of the last Gaussian.

Otherwise than in the paper Q is not squashed into [0, 1] under a cross-entropy loss, and the second value
comes from a critic with weights of its own, not from an older copy of the first.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from caliper.agents import deviations
from caliper.agents.actor_critic import CriticConfig, make_critic
from caliper.agents.base import DRAWN, Agent, Decision, Noise
from caliper.agents.nets import Gaussian, Info, MakeEncoder, descend, polyak, td_loss
from caliper.encoders import augment
from caliper.errors import CaliperError
from caliper.limits import key
from caliper.types import Batch, Obs


class QTOpt(Agent):
    """Q-learning whose policy is a search over the actions."""

    has_critic, has_actor = True, False
    config: QTOptConfig

    def update(self, batch: Batch, noise: Noise = DRAWN) -> Info:
        """See `Agent.update`."""
        cfg, g = self.config, self.generator
        self.updates += 1
        obs = augment(batch.obs, cfg.shift_pad, g, noise.shift)
        next_obs = augment(batch.next_obs, cfg.shift_pad, g, noise.shift_next)
        with self.autocast:
            y, info = self.td_target(batch, next_obs, noise)
            q = self.critic(self.critic.encoder(obs), batch.action[:, None])[..., 0]  # (e, b)
            loss, more = td_loss(q, y)
        info |= more | descend(self.optimizers, {"critic": loss})
        polyak(self.target_critic.parameters(), self.critic.parameters(), cfg.tau)
        return {name: value.detach() for name, value in info.items()}

    @torch.no_grad()
    def td_target(self, batch: Batch, next_obs: Obs, noise: Noise) -> tuple[Tensor, Info]:
        """The target y (b,): minimum over the target ensemble at the first member's best action."""
        features, eps = self.target_critic.encoder(next_obs), noise.eps_target
        if eps is None:
            shape = (len(batch), self.draws, self.action_dim)
            eps = torch.randn(shape, generator=self.generator, device=self.device)

        def value(action: Tensor) -> Tensor:
            q: Tensor = self.target_critic(features, action, member=0)
            return q[0]

        pi, action = self.search(value, eps)
        q = self.target_critic(features, action[:, None])[..., 0]  # (e, b)
        y: Tensor = batch.reward + self.discount * (1.0 - batch.terminal) * q.amin(0)
        if self.config.mc_weight:  # deviation
            y = deviations.mix_return(y, batch.mc_return, self.config.mc_weight)
        return y, {"cem/std": pi.log_std.exp().mean()}

    def search(self, value: Callable[[Tensor], Tensor], eps: Tensor) -> tuple[Gaussian, Tensor]:
        """The cross-entropy method for b states at once.

        Args:
            value: of actions (b, k, a), (b, k).
            eps: standard normal (b, k, a), the draws of all iterations one after the other.

        Returns:
            the last Gaussian, and the best action found (b, a).
        """
        cfg, a = self.config, self.action_dim
        mean = torch.zeros_like(eps[:, :1])  # (b, 1, a)
        std = torch.full_like(mean, cfg.first_std)
        for draws in eps.chunk(cfg.cem_iterations, 1):
            action = (mean + std * draws).clamp(-1.0, 1.0)  # (b, k, a)
            best = value(action).topk(cfg.cem_elites, 1).indices
            elites = action.gather(1, best[..., None].expand(-1, -1, a))
            mean = elites.mean(1, keepdim=True)
            std = elites.std(1, correction=0, keepdim=True).clamp_min(cfg.min_std)
        last = torch.cat([elites, mean], 1)
        best = value(last).argmax(1)  # (b,)
        found = last.gather(1, best[:, None, None].expand(-1, 1, a))[:, 0]
        return Gaussian(mean[:, 0], std[:, 0].log()), found

    @torch.no_grad()
    def decide(self, obs: Obs, deterministic: bool) -> Decision:
        """See `Agent.decide`; greedily the best action found, from the same draws at every observation."""
        g = torch.Generator(self.device).manual_seed(0)
        eps = torch.randn(1, self.draws, self.action_dim, generator=g, device=self.device)
        with self.autocast:
            features = self.critic.encoder(obs)

            def value(action: Tensor) -> Tensor:
                q: Tensor = self.critic(features, action)
                return q.amin(0)

            pi, found = self.search(value, eps.expand(len(obs), -1, -1))
        action = found if deterministic else pi.sample(1, self.generator)[0][:, 0]
        return Decision(action, pi, features)

    def acting(self) -> tuple[str, ...]:
        """See `Agent.acting`."""
        return ("critic",)

    def build(self, make_encoder: MakeEncoder) -> None:
        """See `Agent.build`."""
        cfg = self.config
        if not (cfg.cem_iterations >= 1 and 1 <= cfg.cem_elites <= cfg.cem_samples):
            raise CaliperError(
                f"agent.cem_iterations={cfg.cem_iterations}, cem_samples={cfg.cem_samples} and "
                f"cem_elites={cfg.cem_elites} make no sense; try 2, 64 and 6"
            )
        self.critic = make_critic(cfg, make_encoder, self.action_dim)
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.discount = cfg.discount**cfg.chunk
        self.draws = cfg.cem_iterations * cfg.cem_samples  # actions that a search draws

    def groups(self) -> dict[str, tuple[list[nn.Parameter], float]]:
        """See `Agent.groups`."""
        return {"critic": (list(self.critic.parameters()), self.config.critic_lr)}


@dataclass(kw_only=True)
class QTOptConfig(CriticConfig):
    """Keys of QT-Opt; iterations, samples and elites are the paper's."""

    cem_iterations: int = key(2, resume=True)  # fits of the Gaussian per search
    cem_samples: int = key(64, resume=True)  # actions drawn per iteration
    cem_elites: int = key(6, resume=True)  # of these, how many the Gaussian is fitted to
    first_std: float = key(1.0, at_least=0, resume=True)  # of the first iteration, around 0
    min_std: float = key(0.05, at_least=0, resume=True)  # least of a fit, and of exploring
