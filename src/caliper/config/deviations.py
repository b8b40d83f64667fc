"""What a run uses beyond its algorithm as published: read off its values, so that it cannot be wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

from caliper.agents import AGENTS
from caliper.config.compose import usual_values
from caliper.config.meanings import meaning

DRIVER = ("batch_size", "offline.bc_updates")  # keys of the driver that belong to an algorithm


@dataclass(frozen=True, slots=True)
class Deviation:
    """A key that has another value than the published algorithm.

    Attributes:
        key: its dotted name.
        value: in this run.
        published: in the paper, or its official code.
        meaning: of the key.
    """

    key: str
    value: Any
    published: Any
    meaning: str

    def __str__(self) -> str:
        words = f"{self.key} = {_plain(self.value)}, published {_plain(self.published)}"
        return f"{words} ({self.meaning})" if self.meaning else words


def deviations(config: Mapping[str, Any]) -> list[Deviation]:
    """Every deviation of a run, from what its `config.yaml` holds; none of an unknown agent."""
    agent = config.get("agent")
    name = agent.get("name") if isinstance(agent, Mapping) else None
    if not isinstance(name, str) or name not in AGENTS:
        return []
    published = {f"agent.{f.name}": f.default for f in fields(AGENTS[name][1]) if f.default is not MISSING}
    published |= {key: _at(usual_values(), key) for key in DRIVER}
    found = []
    for key, usually in published.items():
        mine = _at(config, key, usually)
        if _plain(mine) != _plain(usually):
            told = meaning(key.replace("agent.", f"agent.{name}."))
            found.append(Deviation(key, mine, usually, told))
    return found


def _at(values: Mapping[str, Any], key: str, absent: Any = None) -> Any:
    """The value of a dotted key."""
    *parents, last = key.split(".")
    for parent in parents:
        values = values.get(parent) or {}
    return values.get(last, absent)


def _plain(value: Any) -> str:
    """A value as on the command line: equal values look alike."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_plain, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, int | float) else str(value)
