"""What every agent with an actor beside its critics shares: each owns an encoder, and sees an image once.

Beyond the published algorithms, off by default: with `actor_tau` < 1 a moving average of the actor acts; with
`best_of` K the critic chooses among K samples of it (Ghasemipour et al. 2021, arXiv:2007.11091); with
`critic_from_clone` the critics' encoder starts from the cloned actor's.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from caliper.agents.actor import ActorConfig, clone_loss
from caliper.agents.base import Decision, Info, Noise, polyak
from caliper.agents.critic import CriticAgent, CriticConfig
from caliper.agents.nets import Actor, GaussianActor, MakeEncoder, Policy
from caliper.types import Batch, Obs


@dataclass(frozen=True, slots=True)
class Encoded:
    """A batch after its images went once through each network that needs them.

    Attributes:
        batch: the transitions.
        obs: observations at s, their images shifted.
        pi: the policy at s, with gradient; None where the update does not train the actor.
        pi_next: the policy at s', without.
        features: the critic's features of s, with gradient, (b, f) or (e, b, f).
        target_features: the target critic's features of s', without.
    """

    batch: Batch
    obs: Obs
    pi: Policy | None
    pi_next: Policy
    features: Tensor
    target_features: Tensor


class ActorCritic(CriticAgent):
    """An agent with an actor and critics.

    Attributes:
        acting: whether the update in progress trains the actor too, see `actor_every`.
    """

    config: ActorCriticConfig

    def build(self, make_encoder: MakeEncoder) -> None:
        """See `Agent.build`."""
        self.actor = self.make_actor(make_encoder)
        super().build(make_encoder)
        self.average_actor: Actor | GaussianActor | None = None
        if self.config.actor_tau < 1:
            self.average_actor = copy.deepcopy(self.actor).requires_grad_(False)
        self.acting = True

    def make_actor(self, make_encoder: MakeEncoder) -> Actor | GaussianActor:
        """The policy's network: a tanh-Gaussian's, unless the algorithm's paper has another."""
        return Actor(make_encoder, self.action_dim, self.config.actor_hidden)

    def groups(self) -> dict[str, tuple[list[nn.Parameter], float]]:
        """See `Agent.groups`."""
        actor = [p for p in self.actor.parameters() if p.requires_grad]
        own = {"actor": (actor, self.config.actor_lr), "clone": (actor, self.config.clone_lr)}
        return own | super().groups()

    def begin(self) -> None:
        """See `Agent.begin`."""
        if self.config.critic_from_clone and self.updates == 0:
            self.critic.start_from(self.actor.encoder)
            self.target_critic.start_from(self.actor.encoder)
        super().begin()
        self.acting = self.updates % self.config.actor_every == 0

    def phase(self) -> tuple[bool, ...]:
        """See `Agent.phase`."""
        return (*super().phase(), self.acting)

    def encode(self, batch: Batch, noise: Noise) -> Encoded:
        """Shifts the images at random and runs each network's encoder once; the actor's at s if it learns."""
        obs, next_obs = self.augment(batch.obs, noise.shift), self.augment(batch.next_obs, noise.shift_next)
        with torch.no_grad():
            pi_next, target_features = self.next_policy(next_obs), self.target_critic.encode(next_obs)
        pi = self.actor(obs) if self.acting else None
        return Encoded(batch, obs, pi, pi_next, self.critic.encode(obs), target_features)

    def next_policy(self, next_obs: Obs) -> Policy:
        """The policy whose actions the target values."""
        pi: Policy = self.actor(next_obs)
        return pi

    def follow(self) -> None:
        """See `Agent.follow`."""
        super().follow()
        self.average()

    def clone(self, batch: Batch) -> Info:
        """See `Agent.clone`; has an optimiser of its own, so that the actor's moments stay untouched."""
        with self.autocast():
            pi = self.actor(self.augment(batch.obs, None))
        loss = clone_loss(pi, batch.action, self.config.clone_loss).mean()
        info = {"clone/loss": loss.detach()} | self.descend({"clone": loss})
        self.average()
        return info

    def weighted_clone(self, pi: Policy, action: Tensor, weight: Tensor) -> tuple[Tensor, Info]:
        """Cloning of the recorded actions (b, a) by their likelihood, each with its `weight` (b,)."""
        loss = -(weight * pi.log_prob(action)).mean()
        return loss, {
            "actor/loss": loss,
            "actor/clone_loss": clone_loss(pi, action, self.config.clone_loss).mean(),
            "actor/std": pi.log_std.exp().mean(),
            "actor/weight": weight.mean(),
        }

    def average(self) -> None:
        """Moves the averaged actor, if there is one, towards the actor."""
        if self.average_actor:
            average, actor = list(self.average_actor.parameters()), list(self.actor.parameters())
            polyak(average, actor, self.config.actor_tau)

    def policy(self, obs: Obs) -> Policy:
        """See `Agent.policy`; the averaged actor's."""
        pi: Policy = (self.average_actor or self.actor)(obs)
        return pi

    @torch.no_grad()
    def decide(self, obs: Obs, deterministic: bool) -> Decision:
        """See `Agent.decide`; of `best_of` samples the one of highest value; greedily the mode is one."""
        k = self.config.best_of
        if k < 2:
            return super().decide(obs, deterministic)
        # Greedy actions come from the same draws every time, so that evaluating changes no later number.
        g = torch.Generator(self.device).manual_seed(0) if deterministic else self.generator
        eps = torch.randn(
            1 if deterministic else len(obs), k, self.action_dim, generator=g, device=self.device
        )
        with self.autocast():
            pi = self.policy(obs)
            action, _ = pi.sample(eps)
            if deterministic:
                action[:, 0] = pi.mode()
            features = self.critic.encode(obs)
            best = self.critic(features, action).amin(0).argmax(1)  # (n,)
        chosen = action.gather(1, best[:, None, None].expand(-1, 1, self.action_dim))[:, 0]
        return Decision(chosen, pi, features)


@dataclass(kw_only=True)
class ActorCriticConfig(ActorConfig, CriticConfig):
    """Keys of every agent with an actor and critics."""

    actor_lr: float = 1e-4  # Adam
    actor_every: int = 1  # updates of the critics per update of the actor
    critic_from_clone: bool = False  # the critic's encoder starts from the actor's at the first update
    actor_tau: float = 1.0  # speed of the averaged actor, which acts; 1 = the actor itself acts
    best_of: int = 1  # K, actions sampled when acting, of which the critic takes the best
