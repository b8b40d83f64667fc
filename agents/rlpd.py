"""RLPD (Ball et al. 2023, arXiv:2302.02948): SAC with prior data in its batches, and no pre-training on it.

    y        = r + gamma (1 - d) min_{e in M} Qbar_e(s', a'),    M: m of the E critics, drawn at each update
    L_pi     = mean (alpha log pi(a~|s) - mean_e Q_e(s, a~))

with LayerNorm in E = 10 critics, m = 2 (the paper on pixels: 1), and H = -|A| / 2. The random subset is that
of REDQ (Chen et al. 2021, arXiv:2101.05982). Half of each batch is prior data (`online.mixing`). After each
step the critics are updated `online.utd` times (the paper: 20 from states, 1 from pixels), and at every
`actor_every`-th update the actor and the temperature too. The paper's actor on pixels reads the critic's
convolutions; this one has its own encoder, as all agents here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from caliper.agents import deviations
from caliper.agents.base import Noise
from caliper.agents.nets import MakeEncoder
from caliper.agents.sac import SAC, Encoded, SACConfig
from caliper.errors import CaliperError
from caliper.limits import key


class SubsetTarget(SAC):
    """SAC with many critics, of which each update's target asks a few."""

    config: SubsetConfig

    @torch.no_grad()
    def td_target(self, x: Encoded, noise: Noise) -> Tensor:
        """The target y (b,): as `SAC.td_target`, the minimum being over a random few of the critics."""
        action, log_pi = x.pi_next.sample(self.n_target_actions, self.generator, noise.eps_target)
        members = self.subset(noise.subset)  # (m,)
        q = self.target_critic(x.target_features, action).index_select(0, members)  # (m, b, k)
        value, best = q.amin(0).max(-1)  # (b,)
        if self.config.backup_entropy:
            value = value - self.log_alpha.exp() * log_pi.gather(1, best[:, None])[:, 0]
        y: Tensor = x.batch.reward + self.discount * (1.0 - x.batch.terminal) * value
        if self.config.mc_weight:  # deviation
            y = deviations.mix_return(y, x.batch.mc_return, self.config.mc_weight)
        return y

    def subset(self, given: Tensor | None) -> Tensor:
        """Members of the ensemble (m,), without repetition: the given ones, or a new draw."""
        if given is not None:
            return given
        rank = torch.rand(self.config.n_critics, generator=self.generator, device=self.device)
        return rank.topk(self.config.n_subset).indices

    def build(self, make_encoder: MakeEncoder) -> None:
        """See `Agent.build`."""
        m, e = self.config.n_subset, self.config.n_critics
        if not 1 <= m <= e:
            raise CaliperError(f"agent.n_subset={m} makes no sense; it must be 1 to agent.n_critics={e}")
        super().build(make_encoder)


class RLPD(SubsetTarget):
    """Reinforcement learning with prior data."""

    config: RLPDConfig
    over_critics: Callable[..., Tensor] = staticmethod(
        torch.mean
    )  # the actor climbs the mean of the ensemble

    def build(self, make_encoder: MakeEncoder) -> None:
        """See `Agent.build`."""
        super().build(make_encoder)
        if self.config.target_entropy is None:
            self.target_entropy = -self.action_dim / 2


@dataclass(kw_only=True)
class SubsetConfig(SACConfig):
    """Keys of SAC with many critics."""

    n_critics: int = key(10, at_least=1)  # E, members of the Q ensemble
    layer_norm: bool = True  # LayerNorm before each ReLU of the critics
    n_subset: int = key(2, resume=True)  # m, critics drawn for each target


@dataclass(kw_only=True)
class RLPDConfig(SubsetConfig):
    """Keys of RLPD; the defaults are the paper's."""

    actor_lr: float = key(3e-4, at_least=0, resume=True)  # Adam
    temperature_lr: float = key(3e-4, at_least=0, resume=True)  # Adam
    init_temperature: float = key(0.1, at_least=0)  # first alpha; 0 without autotune = no entropy term
    target_entropy: float | None = key(None, resume=True)  # H; null = minus half the number of action entries
