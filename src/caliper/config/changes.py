"""What may change between a run's beginning and its going on, or its evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from caliper.agents import AGENTS
from caliper.config.schema import RunConfig
from caliper.errors import CaliperError


@dataclass(frozen=True, slots=True)
class Change:
    """A key with another value than the run began with."""

    key: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.key}={self.after}, was {self.before}"


def changes(before: RunConfig, after: RunConfig) -> list[Change]:
    """Every key that differs, by its dotted name."""
    old, new = dict(_leaves(asdict(before))), dict(_leaves(asdict(after)))
    return [
        Change(key, old.get(key), new.get(key))
        for key in dict.fromkeys([*old, *new])
        if old.get(key) != new.get(key)
    ]


def refuse_changes(found: Sequence[Change], purpose: str, folder: Path, agent: str) -> None:
    """Refuses changes that the keys' fields do not allow.

    Args:
        found: the changes.
        purpose: "resume" or "evaluate", as in the fields' metadata.
        folder: the run folder, for the message.
        agent: the run's, whose keys count.

    Raises:
        CaliperError: naming the key, both values, and what may change beside it.
    """
    allowed = {key for key, metadata in _metadata(agent) if metadata.get(purpose)}
    for change in found:
        if change.key not in allowed:
            doing = {"resume": "goes on", "evaluate": "is evaluated or filmed"}[purpose]
            section = change.key.rpartition(".")[0]
            can = sorted(key for key in allowed if key.rpartition(".")[0] == section)
            raise CaliperError(
                f"{change.key} cannot change when a run {doing}: {folder} has {change.before}, not "
                f"{change.after}; leave it out, or start a new run"
                + (f". Beside it can: {', '.join(can)}" if can else "")
            )


def _metadata(agent: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each key of a run, and of its agent, with what its field says of it."""
    yield from _fields(RunConfig, "")
    yield "encoder.weights", {"resume": True, "evaluate": True}  # wherever it lies: encoder.sha256 says which
    if agent in AGENTS:
        yield from ((f"agent.{field.name}", field.metadata) for field in fields(AGENTS[agent][1]))


def _fields(kind: Any, prefix: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    hints = get_type_hints(kind)
    for field in fields(kind):
        if is_dataclass(hints[field.name]):
            yield from _fields(hints[field.name], f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", field.metadata


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
