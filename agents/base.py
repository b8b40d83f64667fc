"""What every agent shares: its interface, random numbers, optimisers and the moving average of weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from caliper.agents.nets import MakeEncoder, Policy
from caliper.encoders import Encoder, random_shift
from caliper.errors import CaliperError
from caliper.types import Batch, Obs

Info = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Noise:
    """All random numbers of one update; what is None is drawn from the agent's generator.

    Attributes:
        eps_pi: standard normal (b, 1, a), the action of the actor's loss.
        eps_target: standard normal (b, k, a), actions of the target; k = 1 is the single-action backup.
        eps_cur: standard normal (b, k, a), actions at s of the conservative term.
        eps_next: standard normal (b, k, a), actions at s' of the conservative term.
        rand: uniform in [-1, 1] (b, k, a), random actions of the conservative term.
        subset: int64 (m,), members of the target ensemble of which the target takes the minimum.
        shift: int64 (b, 2) in [-pad, pad], image shift of s.
        shift_next: the same for s'.
    """

    eps_pi: Tensor | None = None
    eps_target: Tensor | None = None
    eps_cur: Tensor | None = None
    eps_next: Tensor | None = None
    rand: Tensor | None = None
    subset: Tensor | None = None
    shift: Tensor | None = None
    shift_next: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """Actions for n observations and what they come from: whoever asks more need not encode an image again.

    Attributes:
        action: (n, a) in [-1, 1].
        pi: the policy there.
        features: the critic's, if it had a say, (n, f) or (e, n, f).
    """

    action: Tensor
    pi: Policy
    features: Tensor | None = None


@dataclass(kw_only=True)
class AgentConfig:
    """Keys that every agent has."""

    chunk: int = 1  # control steps that an action covers; executed open loop (Q-chunking)
    encoder_weight_decay: float = 0.0  # decoupled (AdamW), on the encoders' weights alone
    shift_pad: int = 4  # random shift of the images by up to so many pixels (DrQ); 0 = off
    precision: str = "float32"  # float32 | bfloat16 (networks by autocast; losses and weights stay float32)


class Agent(nn.Module):
    """Tensors in, tensors out.

    A sub-class makes networks in `build`, names their optimisers in `groups` and their losses in `losses`.
    What changes between updates without being a tensor is the business of `begin` and `phase`.

    Attributes:
        config: the agent's keys.
        action_dim: entries of a chunk of actions, `config.chunk` times those of one.
        has_critic: whether `q_values` exists.
        has_actor: whether there is something to `clone`.
        optimizers: Adam by name of the parameter group.
        generator: source of every random number of the agent, on its device.
        online: whether `go_online` was called.
    """

    has_critic = False
    has_actor = True

    def __init__(
        self,
        config: AgentConfig,
        make_encoder: MakeEncoder,
        action_dim: int,
        device: torch.device | str,
        seed: int,
    ) -> None:
        """Builds networks (on the CPU: a seed gives the same weights everywhere), optimisers and generator.

        Args:
            config: the agent's keys.
            make_encoder: a new encoder at each call.
            action_dim: length of the action of one control step.
            device: where everything lives from now on.
            seed: of the generator; the weights come from torch's global one.

        Raises:
            CaliperError: a key's value makes no sense.
        """
        super().__init__()
        choose("precision", config.precision, ("float32", "bfloat16"))
        self.config = config
        self.action_dim = config.chunk * action_dim
        self.device = torch.device(device)
        self.online = False
        self.build(make_encoder)
        self.to(device)
        if self.device.type == "cuda":
            # As the images are: weights in another layout would be converted at every convolution.
            self.to(memory_format=torch.channels_last)
        self.optimizers = {name: self.optimizer(*group) for name, group in self.groups().items()}
        self.generator = torch.Generator(self.device).manual_seed(seed)

    def build(self, make_encoder: MakeEncoder) -> None:
        """Makes the networks."""
        raise NotImplementedError

    def groups(self) -> dict[str, tuple[list[nn.Parameter], float]]:
        """Parameters and learning rate of each optimiser, by name."""
        raise NotImplementedError

    def optimizer(self, params: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        """Adam for some parameters; decays the weights of encoders, if anything's."""
        encoders = {id(p) for m in self.modules() if isinstance(m, Encoder) for p in m.parameters()}
        decay = {True: self.config.encoder_weight_decay, False: 0.0}
        groups = [
            {"params": [p for p in params if (id(p) in encoders) == inside], "weight_decay": decay[inside]}
            for inside in (True, False)
        ]
        # Fused, it is one pass over memory: several times faster on a CPU than the loop over tensors.
        return torch.optim.AdamW([group for group in groups if group["params"]], lr=lr, fused=True)

    def update(self, batch: Batch, noise: Noise | None = None) -> Info:
        """One training step on b transitions; returns detached 0-d tensors by name, on the device."""
        self.begin()
        return self.learn(batch, noise or Noise())

    def begin(self) -> None:
        """The host's part of an update, before the device's: counting, and what follows from the counters."""

    def phase(self) -> tuple[bool, ...]:
        """What decides which operations the device's part makes: as long as it stays, so do they."""
        return (self.online,)

    def learn(self, batch: Batch, noise: Noise) -> Info:
        """The device's part of an update: it waits for nothing, and a CUDA graph can hold it."""
        losses, info = self.losses(batch, noise)
        info |= self.descend(losses)
        self.follow()
        return {name: value.detach() for name, value in info.items()}

    def losses(self, batch: Batch, noise: Noise) -> tuple[dict[str, Tensor], Info]:
        """Losses by the name of the optimiser that descends them, and metrics."""
        raise NotImplementedError

    def draw(self, batch: Batch, noise: Noise) -> Noise:
        """Draws ahead what `losses` would draw, in the same order: a compiler cannot see a generator."""
        return replace(noise, shift=self.offsets(batch.obs, noise.shift))

    def follow(self) -> None:
        """Moves what follows the trained networks once these have stepped."""

    def clone(self, batch: Batch) -> Info:
        """One step of behaviour cloning of the actor alone; raises CaliperError where there is none."""
        raise CaliperError(f"{type(self).__name__} has no actor to clone; set offline.clone_updates=0")

    def policy(self, obs: Obs) -> Policy:
        """The policy's distribution at b observations."""
        raise NotImplementedError

    def q_values(self, obs: Obs, action: Tensor) -> Tensor:
        """Smallest value in the ensemble (b,) of actions (b, a), without gradient."""
        raise NotImplementedError

    @torch.no_grad()
    def decide(self, obs: Obs, deterministic: bool) -> Decision:
        """What `act` does for n observations, and what it comes from."""
        with self.autocast():
            pi = self.policy(obs)
        return Decision(pi.mode() if deterministic else self.explore(pi), pi)

    def explore(self, pi: Policy) -> Tensor:
        """A sample (n, a) of the policy."""
        return pi.sample(self.normal(None, len(pi.mean), 1))[0][:, 0]

    def act(self, obs: Obs, deterministic: bool) -> Tensor:
        """Actions (n, a) in [-1, 1] for n observations: the greedy ones, or samples."""
        return self.decide(obs, deterministic).action

    def go_online(self) -> None:
        """Called once, when the offline phase ends and online data begin to come in."""
        self.online = True

    def descend(self, losses: dict[str, Tensor]) -> Info:
        """Steps every named optimiser along its own loss, all gradients taken at the same old parameters.

        Args:
            losses: loss by optimiser name; its gradient reaches that group's parameters only.

        Returns:
            the gradient norms, as "<name>/grad_norm".
        """
        for name, loss in losses.items():
            self.optimizers[name].zero_grad(set_to_none=True)
            torch.autograd.backward(loss, inputs=self.trained(name))
        return self.step(losses)

    def step(self, names: Iterable[str]) -> Info:
        """Steps the named optimisers along the gradients that their parameters have; returns the norms."""
        info = {}
        for name in names:
            gradients = [p.grad for p in self.trained(name) if p.grad is not None]
            info[f"{name}/grad_norm"] = nn.utils.get_total_norm(gradients)
        for name in names:
            self.optimizers[name].step()
        return info

    def trained(self, name: str) -> list[nn.Parameter]:
        """The parameters of an optimiser."""
        return [p for group in self.optimizers[name].param_groups for p in group["params"]]

    def augment(self, obs: Obs, offsets: Tensor | None) -> Obs:
        """The observations with each sample's images shifted at random, all its views alike."""
        offsets = self.offsets(obs, offsets)
        return obs if offsets is None else replace(obs, pixels=random_shift(obs.pixels, offsets))

    def offsets(self, obs: Obs, given: Tensor | None) -> Tensor | None:
        """Image shifts (b, 2): the given ones, or a new draw; None where nothing is to be shifted."""
        pad = self.config.shift_pad
        if not pad or not obs.pixels.shape[1]:
            return None
        if given is not None:
            return given
        return torch.randint(-pad, pad + 1, (len(obs), 2), generator=self.generator, device=self.device)

    def normal(self, given: Tensor | None, b: int, k: int) -> Tensor:
        """Standard normal noise (b, k, a): the given one, or a new draw."""
        if given is not None:
            return given
        return torch.randn(b, k, self.action_dim, generator=self.generator, device=self.device)

    def uniform(self, given: Tensor | None, b: int, k: int) -> Tensor:
        """Uniform noise in [-1, 1] (b, k, a): the given one, or a new draw."""
        if given is not None:
            return given
        return 2.0 * torch.rand(b, k, self.action_dim, generator=self.generator, device=self.device) - 1.0

    def autocast(self) -> AbstractContextManager[Any]:
        """Where networks run in the configured precision."""
        # No cache of cast weights: one made in a capture, or without gradient, must serve no other use.
        enabled = self.config.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled, cache_enabled=False)

    def train_state(self) -> dict[str, Any]:
        """What `state_dict` leaves out: optimisers, generator and counters, as tensors, numbers and dicts."""
        return {
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "generator": self.generator.get_state(),
            "online": self.online,
        }

    def load_train_state(self, state: dict[str, Any]) -> None:
        """Restores `train_state`, so that the next update gives the numbers an unbroken run would give."""
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.generator.set_state(state["generator"].cpu())
        self.online = state["online"]


@torch.no_grad()
def polyak(target: Sequence[Tensor], source: Sequence[Tensor], tau: float) -> None:
    """Moves every target tensor by the fraction tau towards its source: t <- (1 - tau) t + tau s."""
    torch._foreach_lerp_(list(target), list(source), tau)


def choose(key: str, value: Any, choices: Sequence[Any]) -> None:
    """Refuses a value that is not among the choices.

    Raises:
        CaliperError: naming the key, the value and the choices.
    """
    if value not in choices:
        raise CaliperError(
            f"agent.{key}={value!r} is not known; choose one of {', '.join(map(str, choices))}."
        )
