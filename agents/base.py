"""What every agent shares: its interface, its random numbers, its optimisers, and how it is saved."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from caliper.agents.nets import Critic, Info, MakeEncoder, Policy
from caliper.errors import CaliperError, one_of
from caliper.limits import key
from caliper.types import Batch, Obs


@dataclass(frozen=True, slots=True)
class Noise:
    """All random numbers of one update; what is None is drawn from the agent's generator.

    Attributes:
        eps_pi: standard normal (b, 1, a), the action of the actor's loss.
        eps_target: standard normal (b, k, a), actions of the target; k = 1 is the single-action backup.
        eps_cur: standard normal (b, k, a), actions at s of the conservative term.
        eps_next: standard normal (b, k, a), actions at s' of the conservative term.
        rand: uniform in [-1, 1] (b, k, a), random actions of the conservative term.
        eps_flow: standard normal (b, 1, a), where the flow to a recorded action starts.
        time: uniform in [0, 1] (b, 1, 1), how far along.
        subset: int64 (m,), members of the target ensemble of which the target takes the minimum.
        shift: int64 (b, 2) in [-pad, pad], image shift of s.
        shift_next: the same for s'.
    """

    eps_pi: Tensor | None = None
    eps_target: Tensor | None = None
    eps_cur: Tensor | None = None
    eps_next: Tensor | None = None
    rand: Tensor | None = None
    eps_flow: Tensor | None = None
    time: Tensor | None = None
    subset: Tensor | None = None
    shift: Tensor | None = None
    shift_next: Tensor | None = None


DRAWN = Noise()  # nothing is given: the agent draws everything


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


class Agent(nn.Module):
    """Tensors in, tensors out.

    A sub-class makes networks in `build`, names their optimisers in `groups`, and has an `update` that reads
    from top to bottom. What changes when online data begin to come in is set in `go_online`.

    An update is fit for a CUDA graph: it waits for nothing, and the host does no more in it than to count
    `updates`. Which operations the next one makes is known ahead, see `next_update`.

    Attributes:
        config: the agent's keys.
        action_dim: entries of a chunk of actions, `config.chunk` times those of one.
        has_critic: whether `critic` and `q_values` exist.
        has_actor: whether there is something for `bc_update` to train.
        optimizers: Adam by name of the parameter group.
        generator: source of every random number of the agent, on its device.
        autocast: where networks run in the configured precision.
        online: whether `go_online` was called.
        updates: how many were made, bc updates apart.
        actor_every: updates per update of the actor.
        actor_start: updates during which the actor is only cloned, see `caliper.agents.deviations`.
    """

    has_critic = False
    has_actor = True
    critic: Critic

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
        refuse_unknown("precision", config.precision, ("float32", "bfloat16", "auto"))
        self.config = config
        self.action_dim = config.chunk * action_dim
        self.device = torch.device(device)
        self.online = False
        self.updates = 0
        self.actor_every, self.actor_start = 1, 0
        self.build(make_encoder)
        self.to(device)
        if self.device.type == "cuda":
            # As the images are: weights in another layout would be converted at every convolution.
            self.to(memory_format=torch.channels_last)
        # Fused, a step is one pass over memory: several times faster on a CPU than the loop over tensors.
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            name: torch.optim.Adam(weights, lr=lr, fused=True)
            for name, (weights, lr) in self.groups().items()
        }
        # On the device "meta" a network has shapes and no memory, and nothing is drawn or computed.
        computes = self.device if self.device.type != "meta" else torch.device("cpu")
        self.generator = torch.Generator(computes).manual_seed(seed)
        # No cache of cast weights: one made in a capture, or without gradient, must serve no other use.
        half = resolve_precision(config.precision, computes.type) == "bfloat16"
        self.autocast = torch.autocast(computes.type, torch.bfloat16, enabled=half, cache_enabled=False)

    def build(self, make_encoder: MakeEncoder) -> None:
        """Makes the networks."""
        raise NotImplementedError

    def groups(self) -> dict[str, tuple[list[nn.Parameter], float]]:
        """Parameters and learning rate of each optimiser, by name."""
        raise NotImplementedError

    def update(self, batch: Batch, noise: Noise = DRAWN) -> Info:
        """One training step on b transitions; returns detached 0-d tensors by name, on the device."""
        raise NotImplementedError

    def bc_update(self, batch: Batch, noise: Noise = DRAWN) -> Info:
        """One step of behaviour cloning of the actor alone; raises CaliperError where there is none."""
        raise CaliperError(f"{type(self).__name__} has no actor to clone; set offline.bc_updates=0")

    def decide(self, obs: Obs, deterministic: bool) -> Decision:
        """What `act` does for n observations, and what it comes from."""
        raise NotImplementedError

    def acting(self) -> tuple[str, ...]:
        """Names of the networks that greedy decisions come from: all, where a sub-class says nothing else."""
        return tuple(name for name, _ in self.named_children())

    def act(self, obs: Obs, deterministic: bool) -> Tensor:
        """Actions (n, a) in [-1, 1] for n observations: the greedy ones, or samples."""
        return self.decide(obs, deterministic).action

    @torch.no_grad()
    def q_values(self, obs: Obs, action: Tensor) -> Tensor:
        """Smallest value in the ensemble (b,) of actions (b, a), without gradient."""
        with self.autocast:
            q: Tensor = self.critic(self.critic.encoder(obs), action[:, None])
        return q[..., 0].amin(0)

    def go_online(self) -> None:
        """Called once, when the offline phase ends and online data begin to come in."""
        self.online = True

    def next_update(self) -> tuple[bool, ...]:
        """All that decides which operations the next update makes: while it stays the same, so do they.

        But for the very first, in which networks may start from others.
        """
        count = self.updates + 1
        return self.online, count % self.actor_every == 0, count <= self.actor_start

    def train_state(self) -> dict[str, Any]:
        """What `state_dict` leaves out: optimisers, generator and counters, as tensors, numbers and dicts."""
        return {
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "generator": self.generator.get_state(),
            "online": self.online,
            "updates": self.updates,
        }

    def load_train_state(self, state: dict[str, Any]) -> None:
        """Restores `train_state`, so that the next update gives the numbers an unbroken run would give.

        But for learning rates, which are those of the configuration: a run may go on with others.
        """
        for name, (_, lr) in self.groups().items():
            self.optimizers[name].load_state_dict(state["optimizers"][name])
            for group in self.optimizers[name].param_groups:
                group["lr"] = lr
        restore(self.generator, state["generator"])
        self.updates = state["updates"]
        if state["online"]:
            self.go_online()


def restore(generator: torch.Generator, state: Tensor) -> None:
    """Sets a generator to a saved state; from a state of another kind of device it is seeded anew.

    Those are of another length, and give other numbers anyway.
    """
    if len(state) == len(generator.get_state()):
        generator.set_state(state.cpu())
    else:
        generator.manual_seed(zlib.crc32(state.cpu().numpy().tobytes()))


def refuse_unknown(key: str, value: Any, known: Sequence[Any]) -> None:
    """Raises CaliperError, naming key, value and what is known, where the value is not among these."""
    if value not in known:
        raise CaliperError(f"agent.{key}={value!r} is not known; {one_of(map(str, known), value)}")


def resolve_precision(name: str, device: str) -> str:
    """float32 or bfloat16; `auto` is the second where the device, cpu or cuda, has instructions for it.

    A CPU without them imitates it, at less than half of float32's speed.
    """
    if name != "auto":
        return name
    if device == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    has: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.11 may be without
    return "bfloat16" if any(has.get(x) for x in ("avx512_bf16", "amx_bf16", "bf16")) else "float32"


@dataclass(kw_only=True)
class AgentConfig:
    """Keys that every agent has."""

    chunk: int = key(1, at_least=1)  # control steps that an action covers; executed open loop (Q-chunking)
    shift_pad: int = key(4, at_least=0, resume=True)  # random shift of the images, pixels (DrQ); 0 = off
    # float32 | bfloat16 (networks by autocast; losses and weights stay float32) | auto (what is fast here)
    precision: str = "float32"
