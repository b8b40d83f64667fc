"""Deviations from the papers: all that agents can do here beyond what was published, off by default.

    mc_weight                y <- (1 - m) y + m G: the recorded return G has a share in the target
    bc_update                the actor is cloned from the data before anything else (offline.bc_updates)
    critic_encoder_from_bc   the critics' encoder starts from the cloned actor's
    bc_weight                holds the actor near the data as in TD3+BC (Fujimoto and Gu 2021,
                             arXiv:2106.06860), with Q brought to size one; q = min_e Q_e(s, a~):

        L_pi = mean (alpha log pi(a~|s)) - mean q / mean |q| + c mean |tanh(mean) - a|^2

    actor_start              before, the actor is only cloned while the critic learns, as in COG (Singh et al.
                             2020, arXiv:2010.14500): an untrained critic would undo the clone
    bc_better_only           clones where the recorded return exceeds the critic's value of the policy's
                             action, as self-imitation does (Oh et al. 2018, arXiv:1806.05635)
    actor_tau                a moving average of the actor acts
    best_of                  the critic chooses among K samples of the policy when acting (Ghasemipour et al.
                             2021, arXiv:2007.11091)
    gripper_switch           an action's last entry opens or closes a gripper, and nothing between: its sign
                             acts, and critics are linear in it from -1 to 1

Each is applied by an algorithm under an `if` marked `# deviation`. With every key at its default an update
enters no function of this file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from caliper.agents.nets import (
    AnyActor,
    Critic,
    EncoderPerCritic,
    Info,
    Policy,
    Value,
    bc_loss,
    descend,
)
from caliper.encoders import augment
from caliper.limits import key
from caliper.types import Batch

if TYPE_CHECKING:
    from caliper.agents.actor_critic import ActorCritic
    from caliper.agents.base import Noise


def mix_return(y: Tensor, mc_return: Tensor, weight: float) -> Tensor:
    """The target y (b,) with a share of the recorded return (b,); an unknown one changes nothing."""
    return torch.lerp(y, torch.where(mc_return.isinf(), y, mc_return), weight)


def bc_update(agent: ActorCritic, batch: Batch, noise: Noise) -> Info:
    """One step of cloning, with an optimiser of its own, so that the actor's moments stay untouched."""
    obs = augment(batch.obs, agent.config.shift_pad, agent.generator, noise.shift)
    with agent.autocast:
        loss = agent.cloning_loss(obs, batch.action, noise)
    return {"bc/loss": loss.detach()} | descend(agent.optimizers, {"bc": loss})


def start_encoders(actor: AnyActor, *networks: Critic | Value) -> None:
    """Copies the weights of the actor's encoder into those of other networks."""
    for network in networks:
        encoder = network.encoder
        for own in encoder.members if isinstance(encoder, EncoderPerCritic) else [encoder]:
            own.load_state_dict(actor.encoder.state_dict())


class BCTerm(nn.Module):
    """The actor's loss where it also clones: `actor_start`, `bc_weight` and what belongs to them.

    Attributes:
        online_updates: made since the switch; on the device, where a captured update counts too.
    """

    online_updates: Tensor

    def __init__(self, config: BCTermConfig) -> None:
        super().__init__()
        self.config = config
        # float64: the weight that follows is the one the host would compute. It goes into `train_state`.
        self.register_buffer("online_updates", torch.zeros((), dtype=torch.float64), persistent=False)

    @staticmethod
    def wanted(config: BCTermConfig) -> bool:
        """Whether any of it is on."""
        return bool(config.actor_start or config.bc_weight or config.bc_weight_online)

    def weight(self, online: bool) -> float | Tensor:
        """The weight c now, (): after the switch it fades linearly to its online value."""
        cfg = self.config
        if not online or cfg.bc_weight_online is None:
            return cfg.bc_weight
        if not cfg.bc_fade_steps:
            return cfg.bc_weight_online
        faded = (self.online_updates / cfg.bc_fade_steps).clamp(max=1.0)
        return (cfg.bc_weight + (cfg.bc_weight_online - cfg.bc_weight) * faded).float()

    def loss(
        self, batch: Batch, pi: Policy, q: Tensor, entropy_term: Tensor, only_bc: bool, online: bool
    ) -> tuple[Tensor, Info]:
        """The actor's loss in place of the published one.

        Args:
            batch: the transitions.
            pi: the policy at s.
            q: (b, 1), what the actor climbs.
            entropy_term: mean of alpha log pi, ().
            only_bc: whether Q is kept out of it now.
            online: whether the switch lies behind.
        """
        bc = bc_loss(pi, batch.action)  # (b,)
        if self.config.bc_better_only and not only_bc:
            returns = batch.mc_return
            bc = bc * ((returns > q.detach()[:, 0]) | returns.isinf())  # unknown is not worse
        bc = bc.mean()
        if only_bc:
            loss = entropy_term + bc
        elif self.config.bc_weight or self.config.bc_weight_online:
            loss = entropy_term - q.mean() / q.abs().mean().detach() + self.weight(online) * bc
        else:
            loss = entropy_term - q.mean()
        return loss, {"actor/loss": loss, "actor/bc_loss": bc}


def best_of(
    critic: Critic, features: Tensor, pi: Policy, k: int, generator: torch.Generator, deterministic: bool
) -> Tensor:
    """Of k samples (n, a) of the policy those that the critic values most; greedily the mode is one of them.

    Greedy actions come from the same draws every time, so that evaluating changes no later number.
    """
    mode = pi.mode()
    (n, a), device = mode.shape, mode.device
    g = torch.Generator(device).manual_seed(0) if deterministic else generator
    eps = torch.randn(1 if deterministic else n, k, a, generator=g, device=device)
    action, _ = pi.sample(eps=eps)
    if deterministic:
        action[:, 0] = mode
    best = critic(features, action).amin(0).argmax(1)  # (n,)
    return action.gather(1, best[:, None, None].expand(-1, 1, a))[:, 0]


class SwitchCritic(Critic):
    """Critics whose values are linear in an action's last entry, between those at -1 and 1.

    Only its sign moves a gripper, and recorded ones are -1 or 1. Between them the conservative term digs
    a valley, which an actor on its way from "open" to "closed" does not cross. Linear, Q is what a gripper is
    worth that closes with probability (1 + g) / 2.
    """

    def forward(self, features: Tensor, action: Tensor, member: int | None = None) -> Tensor:
        """See `Critic.forward`; all actions of a state are valued at both ends."""
        ends = torch.cat([action, action], 1)  # (b, 2k, a)
        k = action.shape[1]
        ends[:, :k, -1], ends[:, k:, -1] = -1.0, 1.0
        low, high = super().forward(features, ends, member).chunk(2, -1)  # (e, b, k)
        return torch.lerp(low, high, (1.0 + action[..., -1].float()) / 2.0)


def switched(action: Tensor) -> Tensor:
    """The actions (n, a) with -1 or 1 as their last entry, as recorded ones have."""
    rest, grip = action[:, :-1], action[:, -1:]
    return torch.cat([rest, torch.where(grip < 0, -torch.ones_like(grip), torch.ones_like(grip))], 1)


@dataclass(kw_only=True)
class ReturnConfig:
    """Of every agent with critics."""

    mc_weight: float = key(0.0, at_least=0, at_most=1, resume=True)  # m, share of the recorded return


@dataclass(kw_only=True)
class DeviationConfig(ReturnConfig):
    """Of every agent with an actor and critics."""

    critic_encoder_from_bc: bool = False  # the critics' encoder starts from the actor's at the first update
    actor_tau: float = key(1.0, at_least=0, at_most=1)  # speed of the averaged actor that acts; 1 = none
    best_of: int = key(1, at_least=1, resume=True)  # K, actions of which the critic takes the best
    gripper_switch: bool = False  # an action's last entry opens or closes a gripper, and nothing between


@dataclass(kw_only=True)
class BCTermConfig:
    """Of SAC and what is built on it."""

    actor_start: int = key(0, at_least=0)  # updates in which the actor is only cloned
    bc_weight: float = key(0.0, at_least=0, resume=True)  # c, weight of the cloning term in the actor's loss
    bc_weight_online: float | None = key(None, at_least=0, resume=True)  # c after the switch; null = the same
    bc_fade_steps: int = key(0, at_least=0, resume=True)  # updates over which c fades to its online value
    bc_better_only: bool = key(False, resume=True)  # clone where the return exceeds Q(s, pi)
