"""WSRL (Zhou et al. 2024, arXiv:2412.07762): Cal-QL before the switch, SAC with many critics after it.

    before   Cal-QL with the target of `caliper.agents.rlpd`: y from the minimum over m of E critics
    after    the same without the conservative term, a single-action backup, the actor at every 4th update

Offline data is not kept for fine-tuning (`online.mixing=0`): it starts with warm-up steps of the policy as it
is (`online.warmup_steps`; the paper: 5,000), then makes 4 updates a step (`online.utd`). The actor climbs the
minimum over all critics, as in the official code.

Otherwise than in that code the conservative term takes all critics, not a random two; the members of a subset
differ; losses are summed over the ensemble, not averaged; and the actor has no LayerNorm.
"""

from __future__ import annotations

from dataclasses import dataclass

from caliper.agents.calql import CalQL
from caliper.agents.cql import CQLConfig
from caliper.agents.nets import MakeEncoder
from caliper.agents.rlpd import SubsetConfig, SubsetTarget
from caliper.limits import key


class WSRL(CalQL, SubsetTarget):
    """Warm-start reinforcement learning."""

    config: WSRLConfig

    def build(self, make_encoder: MakeEncoder) -> None:
        """See `Agent.build`; before the switch every update trains the actor."""
        super().build(make_encoder)
        self.actor_every = 1

    def go_online(self) -> None:
        """See `Agent.go_online`."""
        super().go_online()
        self.actor_every = self.config.actor_every
        self.n_target_actions = self.config.n_target_actions_online


@dataclass(kw_only=True)
class WSRLConfig(CQLConfig, SubsetConfig):
    """Keys of WSRL; the defaults are the official code's."""

    n_critics: int = key(10, at_least=1)  # E, members of the Q ensemble
    layer_norm: bool = True  # LayerNorm before each ReLU of the critics
    actor_every: int = key(4, at_least=1)  # after the switch: updates of the critics per update of the actor
    n_target_actions_online: int = key(1, at_least=1, resume=True)  # after the switch (AntMaze: 10)
    conservative_weight_online: float | None = key(0.0, at_least=0, resume=True)  # W online; null = W
