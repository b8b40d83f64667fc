"""What became infinite, or no number: noted on the device at every update, read now and then."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from caliper.agents import AGENTS, Agent
from caliper.agents.nets import Info
from caliper.config.schema import RunConfig
from caliper.errors import CaliperError

NEVER = 1 << 62  # an update that no run gets to
MOST = 512  # metrics that all kinds of updates have together
USUAL = 1e4  # above it a number in the configuration is suspected


class NotFiniteError(CaliperError):
    """A run computes with numbers that are none; nothing of them was saved."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """What was the first not to be finite.

    Attributes:
        names: the metrics, or parameters, that were not from then on, in the order of the update.
        at: how many updates, or bc updates, had been made, that one included.
        bc: whether it was a bc update.
    """

    names: tuple[str, ...]
    at: int
    bc: bool

    def __str__(self) -> str:
        return f"{self.names[0]} is not finite since {'bc update' if self.bc else 'update'} {self.at}"


class FiniteWatch:
    """Remembers of every metric the first update at which it was not finite.

    To note it takes a few operations on small tensors and waits for nothing: it can be part of a captured
    update. Only `trouble` waits for the device.

    Attributes:
        first: int64 (most,), of each metric the first update at which it was not finite.
    """

    def __init__(self, device: torch.device) -> None:
        self.first = torch.full((MOST,), NEVER, dtype=torch.int64, device=device)
        self._made = torch.zeros(2, dtype=torch.int64, device=device)  # updates, bc updates
        self._places: dict[tuple[str | bool, ...], int] = {}  # where metrics that come together are noted

    def start(self, updates: int, bc_updates: int) -> None:
        """Counts on from so many updates and bc updates."""
        self._made.copy_(torch.tensor([updates, bc_updates]))

    def note(self, info: Info, bc: bool = False) -> Info:
        """Takes one update's metrics, and gives them back."""
        group: tuple[str | bool, ...] = (bc, *info)
        if group not in self._places:
            self._places[group] = sum(len(other) - 1 for other in self._places)
        start = self._places[group]
        first, made = self.first[start : start + len(info)], self._made[int(bc)]
        made.add_(1)
        finite = torch.stack([value.float() for value in info.values()]).isfinite()
        torch.minimum(first, finite * NEVER + made, out=first)
        return info

    def trouble(self) -> Trouble | None:
        """What was not finite first, if anything was; bc comes before all updates."""
        first = self.first.tolist()
        found = [
            (not bc, first[start + i], str(name))
            for (bc, *names), start in self._places.items()
            for i, name in enumerate(names)
            if first[start + i] < NEVER
        ]
        if not found:
            return None
        updating, at, _ = min(found, key=lambda entry: entry[:2])
        names = dict.fromkeys(name for *when, name in found if when == [updating, at])
        return Trouble(tuple(names), at, not updating)


def unsound_weights(agent: Agent) -> list[str]:
    """Names of trained parameters that are not finite, or so large that their squares are not.

    Waits for the device once.
    """
    trained = {id(p) for o in agent.optimizers.values() for group in o.param_groups for p in group["params"]}
    named = {name: p.detach() for name, p in agent.named_parameters() if id(p) in trained}
    sound = torch.stack(torch._foreach_norm(list(named.values()))).isfinite().tolist()
    return [name for name, good in zip(named, sound, strict=True) if not good]


def stopped(trouble: Trouble, config: RunConfig, folder: Path, whole: str) -> NotFiniteError:
    """The one sentence on a run that can't go on.

    Args:
        trouble: what was found.
        config: of the run.
        folder: the run folder.
        whole: what the latest checkpoint is of, such as "update 500".
    """
    key, value, usual = likely_cause(trouble, config)
    cause = f"the likely cause is {key}={value:g}"
    kept = f"the checkpoint of {whole} is from before and stays the latest"
    if usual is None:
        return NotFiniteError(f"{trouble}: {cause}; {kept}; start a new run with another {key}")
    again = f"caliper resume {shlex.quote(str(folder))} {key}={usual:g}"
    return NotFiniteError(f"{trouble}: {cause}; {kept}; go on from it with: {again}")


def likely_cause(trouble: Trouble, config: RunConfig) -> tuple[str, float, float | None]:
    """The key that most likely made something infinite, its value, and one to go on with.

    Nothing had been learned before the first step, so it is a number of the configuration then, the largest.
    Later it is the learning rate, of those whose losses were the first to go, that is farthest above its
    default; unless none is far above it, and there is a number that is unusually large. The value to go on
    with is None where the key may not change at a resume.
    """
    agent, (_, kind) = config.agent, AGENTS[config.agent["name"]]
    entries = fields(kind)
    defaults: dict[str, Any] = {
        f.name: f.default for f in entries if isinstance(f.default, float) or f.default is None
    }
    numbers = {f"agent.{k}": agent[k] for k in defaults if _is_number(agent.get(k))}
    numbers |= {"reward.scale": config.reward.scale, "reward.bias": config.reward.bias}
    largest = max(numbers, key=lambda key: abs(numbers[key]))
    rates = _learning_rates(trouble, defaults) or ["actor_lr" if "actor_lr" in defaults else "critic_lr"]
    rates = [key for key in rates if key in defaults] or [k for k in defaults if k.endswith("_lr")]
    above = {key: float(agent.get(key, defaults[key])) / defaults[key] for key in rates}
    rate = max(above, key=lambda key: above[key])
    if trouble.at > 1 and (above[rate] > 10 or abs(numbers[largest]) <= USUAL):
        value = float(agent.get(rate, defaults[rate]))
        return f"agent.{rate}", value, defaults[rate] if above[rate] > 1 else value / 10
    name = largest.removeprefix("agent.")
    may_change = any(f.name == name and f.metadata.get("resume") for f in fields(kind))
    usual = defaults.get(name) if largest.startswith("agent.") and may_change else None
    return largest, float(numbers[largest]), usual


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _learning_rates(trouble: Trouble, defaults: Mapping[str, Any]) -> list[str]:
    """Of the optimisers whose metrics were the first; cloning's where an agent clones and no more."""
    parts = dict.fromkeys(name.split("/")[0].split(".")[0] for name in trouble.names)
    rates = [f"{part}_lr" for part in parts if f"{part}_lr" in defaults]
    return rates or [key for key in ("bc_lr",) if "actor" in parts and key in defaults]


def far_outside(values: NDArray[Any], bounds: tuple[float, float]) -> bool:
    """Whether values average farther from all possible returns than these are from each other."""
    low, high = bounds
    width, mean = high - low, float(values.mean())
    return not low - width <= mean <= high + width
