"""Conservative Q-learning (Kumar et al. 2020, arXiv:2006.04779) in the form of the official Cal-QL code.

    L_Q_e   += W mean_b clip(T log sum_j exp(c_j / T) - Q_e(s, a), lo, hi)

where the columns c_j are the values at s of k actions of each of three groups, corrected by their log-density
(importance sampling):

    uniform   Q_e(s, a) + |A| log 2          pi(.|s), pi(.|s')   calibrate(Q_e(s, a)) - log pi(a)

Without importance sampling the columns are the plain values and that of the data action. In the Lagrange form
W becomes W * clip(exp(log_w), 0, 1e6), the difference is taken minus `gap`, and log_w ascends the term.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from caliper.agents.base import Noise
from caliper.agents.nets import Info, MakeEncoder, td_loss
from caliper.agents.sac import SAC, Encoded, SACConfig
from caliper.errors import CaliperError
from caliper.limits import key


class CQL(SAC):
    """SAC whose critics are pushed down on actions of the policy and up on the actions of the data.

    Attributes:
        conservative_weight: W now; 0 is plain SAC, and costs no more than that.
        log_lagrange: log_w of the Lagrange form.
    """

    config: CQLConfig

    def critic_loss(self, x: Encoded, y: Tensor, noise: Noise) -> tuple[Tensor, Info]:
        """SAC's loss plus the conservative term, from one pass through the critics at 1 + 3k actions."""
        if not self.conservative_weight:
            return super().critic_loss(x, y, noise)
        batch, k, g = x.batch, self.config.n_actions, self.generator
        with torch.no_grad():
            pi = self.actor(x.obs) if x.sample is None else x.sample[0]
            current, log_current = pi.sample(k, g, noise.eps_cur)
            following, log_following = x.pi_next.sample(k, g, noise.eps_next)
            uniform = noise.rand
            if uniform is None:
                uniform = 2.0 * torch.rand(current.shape, generator=g, device=current.device) - 1.0
            actions = torch.cat([batch.action[:, None], uniform, current, following], 1)  # (b, 1 + 3k, a)
        q = self.critic(x.features, actions)  # (e, b, 1 + 3k)
        td, info = td_loss(q[..., 0], y)
        log_pi = torch.cat([log_current, log_following], 1)  # (b, 2k)
        conservative, more = self.conservative_loss(q, log_pi, batch.mc_return)
        loss = td + conservative
        return loss, info | more | {"critic/loss": loss}

    def conservative_loss(self, q: Tensor, log_pi: Tensor, mc_return: Tensor) -> tuple[Tensor, Info]:
        """The conservative term of the critics, summed over the ensemble.

        Args:
            q: (e, b, 1 + 3k), values at s of the data action, then k uniform, k of pi(s) and k of pi(s').
            log_pi: (b, 2k), log-densities of the last two groups.
            mc_return: (b,).

        Returns:
            the loss and its metrics.
        """
        cfg, k, weight = self.config, self.config.n_actions, self.conservative_weight
        q_data, q_random, q_policy = torch.split(q, [1, k, 2 * k], -1)
        bounded = self.calibrate(q_policy, mc_return)
        if cfg.importance_sampling:
            log_uniform = -self.action_dim * math.log(2.0)
            columns = torch.cat([q_random - log_uniform, bounded - log_pi], -1)  # (e, b, 3k)
        else:
            columns = torch.cat([q_random, q_data, bounded], -1)  # (e, b, 3k + 1)
        ood = cfg.cql_temperature * torch.logsumexp(columns / cfg.cql_temperature, -1)  # (e, b)
        low = -math.inf if cfg.clip_diff_min is None else cfg.clip_diff_min
        gap = (ood - q_data[..., 0]).clamp(low, cfg.clip_diff_max).mean(1)  # (e,)
        info: Info = {}
        if cfg.lagrange:
            multiplier = self.log_lagrange.exp().clamp(0.0, 1e6)
            excess = weight * (gap - cfg.gap)
            multiplier_loss = -(multiplier * excess.detach()).mean()
            # The first term moves the critics only, the second, of value zero, the multiplier only.
            loss = multiplier.detach() * excess.sum() + (multiplier_loss - multiplier_loss.detach())
            info |= {"critic/lagrange": multiplier, "critic/lagrange_loss": multiplier_loss}
        else:
            loss = weight * gap.sum()
        with torch.no_grad():
            share = torch.softmax(columns / cfg.cql_temperature, -1)[..., -2 * k :]  # (e, b, 2k)
            below = (q_policy < mc_return[:, None]).float().mean((0, 1))  # (2k,)
            info |= {
                "critic/gap": gap.mean(),
                "critic/q_random": q_random.mean(),
                "critic/q_current": q_policy[..., :k].mean(),
                "critic/q_next": q_policy[..., k:].mean(),
                "critic/columns_std": columns.std(-1).mean(),
                "critic/policy_share": share.sum(-1).mean(),
                "critic/bound_rate": below.mean(),
                "critic/bound_rate_current": below[:k].mean(),
                "critic/bound_rate_next": below[k:].mean(),
            }
        return loss, info

    def calibrate(self, q: Tensor, mc_return: Tensor) -> Tensor:
        """Cal-QL's function of the policy's actions' values (e, b, k) and the returns (b,); here nothing."""
        return q

    def build(self, make_encoder: MakeEncoder) -> None:
        """See `Agent.build`."""
        low, high = self.config.clip_diff_min, self.config.clip_diff_max
        if low is not None and high is not None and low > high:
            raise CaliperError(
                f"agent.clip_diff_min={low} exceeds agent.clip_diff_max={high}; lower the one or raise the "
                "other"
            )
        super().build(make_encoder)
        self.log_lagrange = nn.Parameter(torch.tensor(1.0), requires_grad=self.config.lagrange)
        self.conservative_weight = self.config.conservative_weight

    def groups(self) -> dict[str, tuple[list[nn.Parameter], float]]:
        """See `Agent.groups`; the Lagrange multiplier steps with the critics, at their learning rate."""
        groups = super().groups()
        if self.config.lagrange:
            groups["critic"][0].append(self.log_lagrange)
        return groups

    def go_online(self) -> None:
        """See `Agent.go_online`."""
        super().go_online()
        if self.config.conservative_weight_online is not None:
            self.conservative_weight = self.config.conservative_weight_online


@dataclass(kw_only=True)
class CQLConfig(SACConfig):
    """Keys of CQL and Cal-QL; the defaults are the official Cal-QL code's."""

    n_target_actions: int = key(10, at_least=1, resume=True)  # the target takes the best of so many
    n_actions: int = key(10, at_least=1, resume=True)  # k, sampled actions of each of the three groups
    conservative_weight: float = key(5.0, at_least=0, resume=True)  # W
    conservative_weight_online: float | None = key(None, at_least=0, resume=True)  # W online; null = W
    importance_sampling: bool = True  # subtract log-densities from the columns
    cql_temperature: float = key(1.0, above=0, resume=True)  # T of the log-sum-exp
    clip_diff_min: float | None = key(None, resume=True)  # lo, on each sample's difference; null = none
    clip_diff_max: float | None = key(None, resume=True)  # hi; null = none
    lagrange: bool = False  # learn a multiplier on W so that the difference meets `gap`
    gap: float = key(1.0, resume=True)  # wanted difference of the Lagrange form
