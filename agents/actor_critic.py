"""What agents with an actor beside their critics share: how they are built, act, and are saved."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from caliper.agents import deviations
from caliper.agents.base import DRAWN, Agent, AgentConfig, Decision, Noise
from caliper.agents.nets import Actor, AnyActor, Critic, Info, MakeEncoder, bc_loss, polyak, trained
from caliper.errors import CaliperError
from caliper.limits import key
from caliper.types import Batch, Obs


class ActorCritic(Agent):
    """An actor, and an ensemble of critics with a slow copy, the target; each owns an encoder.

    Attributes:
        actor: observations to a policy.
        critic: features and actions to values.
        target_critic: its moving average, encoder included.
        average_actor: the actor's, which then acts; None where it is off.
        discount: gamma over as many control steps as an action covers.
    """

    has_critic = True
    config: ActorCriticConfig

    def build(self, make_encoder: MakeEncoder) -> None:
        """See `Agent.build`.

        Raises:
            CaliperError: `gripper_switch` with a chunk of several control steps.
        """
        cfg = self.config
        self.actor = self.make_actor(make_encoder)
        kind = Critic
        if cfg.gripper_switch:  # deviation
            if cfg.chunk > 1:
                raise CaliperError(
                    "agent.gripper_switch is for actions of one control step, whose last entry is the "
                    "gripper's; set agent.chunk=1"
                )
            kind = deviations.SwitchCritic
        self.critic = make_critic(cfg, make_encoder, self.action_dim, kind)
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.discount = cfg.discount**cfg.chunk
        self.actor_every = cfg.actor_every
        self.average_actor: AnyActor | None = None
        if cfg.actor_tau < 1:  # deviation
            self.average_actor = copy.deepcopy(self.actor).requires_grad_(False)

    def make_actor(self, make_encoder: MakeEncoder) -> AnyActor:
        """The policy's network: a tanh-Gaussian's, unless the algorithm's paper has another."""
        return Actor(make_encoder, self.action_dim, self.config.actor_hidden)

    def groups(self) -> dict[str, tuple[list[nn.Parameter], float]]:
        """See `Agent.groups`."""
        cfg, actor = self.config, trained(self.actor)
        return {
            "actor": (actor, cfg.actor_lr),
            "bc": (actor, cfg.bc_lr),
            "critic": (list(self.critic.parameters()), cfg.critic_lr),
        }

    def bc_update(self, batch: Batch, noise: Noise = DRAWN) -> Info:
        """See `Agent.bc_update`."""
        info = deviations.bc_update(self, batch, noise)
        if self.average_actor is not None:  # deviation
            polyak(self.average_actor.parameters(), self.actor.parameters(), self.config.actor_tau)
        return info

    def cloning_loss(self, obs: Obs, action: Tensor, noise: Noise) -> Tensor:
        """What a bc update takes down on the recorded actions (b, a); `noise` serves flows."""
        return bc_loss(self.actor(obs), action).mean()

    @torch.no_grad()
    def decide(self, obs: Obs, deterministic: bool) -> Decision:
        """See `Agent.decide`."""
        cfg = self.config
        with self.autocast:
            pi = (self.average_actor or self.actor)(obs)
            features = None
            if cfg.best_of > 1:  # deviation
                features = self.critic.encoder(obs)
                action = deviations.best_of(
                    self.critic, features, pi, cfg.best_of, self.generator, deterministic
                )
            else:
                action = pi.mode() if deterministic else pi.sample(1, self.generator)[0][:, 0]
            if cfg.gripper_switch:  # deviation
                action = deviations.switched(action)
            return Decision(action, pi, features)

    def acting(self) -> tuple[str, ...]:
        """See `Agent.acting`."""
        actor = "actor" if self.average_actor is None else "average_actor"
        return (actor, "critic") if self.config.best_of > 1 else (actor,)


def make_critic(
    config: CriticConfig, make_encoder: MakeEncoder, action_dim: int, kind: type[Critic] = Critic
) -> Critic:
    """The ensemble that the keys describe."""
    return kind(
        make_encoder,
        action_dim,
        config.critic_hidden,
        config.n_critics,
        layer_norm=config.layer_norm,
        encoder_per_critic=config.encoder_per_critic,
    )


@dataclass(kw_only=True)
class ActorConfig(AgentConfig):
    """Keys of every agent with an actor."""

    actor_hidden: Sequence[int] = key((256, 256), at_least=1)  # widths of the policy's hidden layers
    bc_lr: float = key(3e-4, at_least=0, resume=True)  # Adam of the bc updates


@dataclass(kw_only=True)
class CriticConfig(AgentConfig, deviations.ReturnConfig):
    """Keys of every agent with critics; the defaults are the official Cal-QL code's."""

    critic_hidden: Sequence[int] = key((256, 256), at_least=1)  # widths of the critics' hidden layers
    critic_lr: float = key(3e-4, at_least=0, resume=True)  # Adam
    n_critics: int = key(2, at_least=1)  # members of the Q ensemble
    layer_norm: bool = False  # LayerNorm before each ReLU of the critics
    encoder_per_critic: bool = False  # each Q has its own encoder instead of one for the ensemble
    discount: float = 0.99  # gamma
    tau: float = key(0.005, at_least=0, at_most=1, resume=True)  # speed of the target's moving average


@dataclass(kw_only=True)
class ActorCriticConfig(ActorConfig, CriticConfig, deviations.DeviationConfig):
    """Keys of every agent with an actor and critics."""

    actor_lr: float = key(1e-4, at_least=0, resume=True)  # Adam
    actor_every: int = key(1, at_least=1)  # updates of the critics per update of the actor
