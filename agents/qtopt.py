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

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from caliper.agents.base import Decision, Info, Noise
from caliper.agents.critic import CriticAgent, CriticConfig
from caliper.agents.nets import Gaussian, MakeEncoder, Policy
from caliper.errors import CaliperError
from caliper.types import Batch, Obs


class QTOpt(CriticAgent):
    """Q-learning whose policy is a search over the actions."""

    has_actor = False
    config: QTOptConfig

    def build(self, make_encoder: MakeEncoder) -> None:
        """See `Agent.build`."""
        cfg = self.config
        if not (cfg.cem_iterations >= 1 and 1 <= cfg.cem_elites <= cfg.cem_samples):
            raise CaliperError(
                f"agent.cem_iterations={cfg.cem_iterations}, cem_samples={cfg.cem_samples} and "
                f"cem_elites={cfg.cem_elites} make no sense; try 2, 64 and 6"
            )
        super().build(make_encoder)

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
    def target(self, batch: Batch, features: Tensor, noise: Noise) -> tuple[Tensor, Info]:
        """The Bellman target (b,): minimum over the target ensemble at the first member's best action.

        Args:
            batch: the transitions.
            features: the target critic's of s', (b, f) or (e, b, f).
            noise: its `eps_target` holds the draws of the search.
        """

        def value(action: Tensor) -> Tensor:
            return self.target_critic.head.alone(0, features, action).float()

        pi, action = self.search(value, self.normal(noise.eps_target, len(batch), self.draws()))
        q = self.target_critic(features, action[:, None])[..., 0]  # (e, b)
        return self.bellman(batch, q.amin(0)), {"cem/std": pi.log_std.exp().mean()}

    def losses(self, batch: Batch, noise: Noise) -> tuple[dict[str, Tensor], Info]:
        """See `Agent.losses`."""
        with self.autocast():
            obs = self.augment(batch.obs, noise.shift)
            next_obs = self.augment(batch.next_obs, noise.shift_next)
            with torch.no_grad():
                target_features = self.target_critic.encode(next_obs)
            target, info = self.target(batch, target_features, noise)
            q = self.critic(self.critic.encode(obs), batch.action[:, None])[..., 0]  # (e, b)
            loss, more = self.td_loss(q, target)
        return {"critic": loss}, info | more

    def draw(self, batch: Batch, noise: Noise) -> Noise:
        """See `Agent.draw`."""
        noise = super().draw(batch, noise)
        return replace(noise, eps_target=self.normal(noise.eps_target, len(batch), self.draws()))

    def draws(self) -> int:
        """Actions that a search draws."""
        return self.config.cem_iterations * self.config.cem_samples

    def policy(self, obs: Obs) -> Policy:
        """See `Agent.policy`: the Gaussian that the search ends with."""
        return self.decide(obs, deterministic=True).pi

    @torch.no_grad()
    def decide(self, obs: Obs, deterministic: bool) -> Decision:
        """See `Agent.decide`; greedily the best action found, from the same draws at every observation."""
        g = torch.Generator(self.device).manual_seed(0)
        eps = torch.randn(1, self.draws(), self.action_dim, generator=g, device=self.device)
        with self.autocast():
            features = self.critic.encode(obs)

            def value(action: Tensor) -> Tensor:
                q: Tensor = self.critic(features, action)
                return q.amin(0)

            pi, found = self.search(value, eps.expand(len(obs), -1, -1))
        return Decision(found if deterministic else self.explore(pi), pi, features)


@dataclass(kw_only=True)
class QTOptConfig(CriticConfig):
    """Keys of QT-Opt; iterations, samples and elites are the paper's."""

    cem_iterations: int = 2  # fits of the Gaussian per search
    cem_samples: int = 64  # actions drawn per iteration
    cem_elites: int = 6  # of these, how many the Gaussian is fitted to
    first_std: float = 1.0  # of the first iteration, around 0; at 1 a third of all entries lie on a face
    min_std: float = 0.05  # least standard deviation that a fit may give, also that of exploring actions
