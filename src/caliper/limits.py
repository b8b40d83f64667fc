"""What values of a configuration's key make sense, said beside the key and checked in one place."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import partial
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from caliper.errors import CaliperError, one_of

MISSING: Any = (
    "???"  # how OmegaConf, which an exported policy does without, writes that a value must be given
)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a number, or of each entry of a list; or the words to choose from.

    Attributes:
        at_least, above: the lower end, itself allowed or not.
        at_most, below: the upper end, likewise.
        choices: the values there are.
    """

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()

    def hold(self, value: Any) -> bool:
        """Whether a value, or every entry of a list, is finite and within the bounds; null and text are."""
        if self.choices and value is not None:
            return value in self.choices
        if isinstance(value, Sequence) and not isinstance(value, str):
            return all(map(self.hold, value))
        if isinstance(value, bool) or not isinstance(value, int | float):
            return True
        return (
            math.isfinite(value)
            and (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        """As in "at least 0, at most 1"; empty without bounds."""
        if self.choices:
            return " | ".join(self.choices)
        ends = {"at least": self.at_least, "above": self.above, "at most": self.at_most, "below": self.below}
        return ", ".join(f"{words} {end:g}" for words, end in ends.items() if end is not None)


def key(
    default: Any = MISSING,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] = (),
    resume: bool = False,
    evaluate: bool = False,
) -> Any:
    """A field of a configuration with its limits.

    Args:
        default: its value; by default none, for it is in `configs/`.
        at_least: see `Limits`, as are `above`, `at_most`, `below` and `choices`.
        above: see there.
        at_most: see there.
        below: see there.
        choices: see there.
        resume: whether a run may go on with another value.
        evaluate: whether a finished policy may be evaluated, or filmed, with another value.
    """
    limits = Limits(at_least, above, at_most, below, choices)
    metadata = {"limits": limits, "resume": resume, "evaluate": evaluate}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def check_limits(kind: type, values: Mapping[str, Any], path: str) -> None:
    """Holds values to the limits of a dataclass's fields, and every number to being finite.

    Raises:
        CaliperError: naming the key, its value and what it must be.
    """
    for entry in fields(kind):
        value = values.get(entry.name)
        limits: Limits = entry.metadata.get("limits", Limits())
        if not limits.hold(value):
            name = f"{path}.{entry.name}" if path else entry.name
            if limits.choices:
                raise CaliperError(f"{name}={value} is unknown; {one_of(limits.choices, value)}")
            must = f"it must be {limits}" if str(limits) else "it must be a finite number"
            raise CaliperError(f"{name}={value} makes no sense; {must}")


def check_types(group: str, options: Mapping[str, Any], of: Callable[..., Any]) -> None:
    """Holds the keys of an agent's dataclass or of an encoder to the types of their annotations.

    Unknown keys are left to whoever builds the part.

    Raises:
        CaliperError: naming the key, its value and the type.
    """
    make = of.func if isinstance(of, partial) else of
    hints = get_type_hints(make if is_dataclass(make) else make.__init__)
    for key, value in options.items():
        if key in hints and not _fits(value, hint := hints[key]):
            wanted = hint.__name__ if isinstance(hint, type) else str(hint).replace("collections.abc.", "")
            raise CaliperError(f"{group}.{key}={value} has the wrong type; it must be {wanted}")


def _fits(value: Any, hint: Any) -> bool:
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, part) for part in get_args(hint))
    if get_origin(hint) is Sequence:
        return isinstance(value, list | tuple) and all(_fits(entry, get_args(hint)[0]) for entry in value)
    if hint is NoneType:
        return value is None
    if hint is float:
        return type(value) in (int, float)
    return type(value) is hint
