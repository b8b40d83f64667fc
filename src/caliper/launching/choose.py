"""The launcher that the command line names, with its keys: launcher=slurm sweep.slurm.minutes=60."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields

from caliper.config.messages import unknown, unknown_key
from caliper.errors import CaliperError
from caliper.launching.job import Launcher
from caliper.launching.local import Local
from caliper.launching.ray import Ray
from caliper.launching.slurm import Slurm

LAUNCHERS: dict[str, type[Local] | type[Slurm] | type[Ray]] = {"local": Local, "slurm": Slurm, "ray": Ray}
KINDS: dict[str, Callable[[str], int | float | str]] = {"int": int, "float": float, "str | None": str}
NUMBERS = {"minutes": 2, "cpus": 1, "gpus": 0}  # the least they may be


def choose(name: str, keys: Mapping[str, str], verb: str) -> Launcher:
    """Makes the launcher.

    Args:
        name: of `LAUNCHERS`.
        keys: the words that begin with the verb, such as {"sweep.slurm.cpus": "4"}.
        verb: sweep or compare.

    Raises:
        CaliperError: there is no such launcher or key, a value does not fit, or what the launcher needs is
            missing.
    """
    if name not in LAUNCHERS:
        raise CaliperError(unknown("launcher", name, LAUNCHERS))
    kind = LAUNCHERS[name]
    types = {f"{verb}.{name}.{field.name}": str(field.type) for field in fields(kind) if field.init}
    values = {}
    for key, text in keys.items():
        if key not in types:
            if key.split(".")[1] in LAUNCHERS.keys() - {name}:
                raise CaliperError(f"{key} is a key of another launcher; add launcher={key.split('.')[1]}")
            raise CaliperError(unknown_key(key, [f"{verb}.dir", f"{verb}.jobs", *types]))
        field = key.rpartition(".")[2]
        try:
            values[field] = KINDS[types[key]](text)
            if field in NUMBERS and not NUMBERS[field] <= float(text) < 1e9:
                raise ValueError
        except ValueError:
            what = "a whole number" if types[key] == "int" else "a number"
            raise CaliperError(f"{key}={text} must be {what}, at least {NUMBERS[field]}") from None
    return kind(**values)  # type: ignore[arg-type]  # of the kinds that the fields' types have named
