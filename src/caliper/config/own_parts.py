"""`encoder=` and `agent=` that name something from outside: how a command line and a run folder load it."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from caliper.config.own_task import offered
from caliper.config.schema import RunConfig
from caliper.errors import CaliperError
from caliper.parts import KINDS, Part, find, load, noted, options, require_known


def expanded(words: Sequence[str]) -> list[str]:
    """A command line that says where each part from outside is, once its code has run: its user has named it.

    Raises:
        CaliperError: there is no such file or class, or it fails.
    """
    found = list(words)
    for kind in KINDS:
        spelt = (f"{kind}=", f"parts.{kind}=")
        said = [w for w in found if w.startswith(spelt) and w != f"parts.{kind}=null"]
        if not said:
            continue
        key, _, word = said[-1].partition("=")
        word = word.strip("'\"")
        if key == kind and ".py" not in word and word not in offered(kind):
            continue
        part = find(kind, word)
        rest = [w for w in found if not w.startswith((*spelt, f"parts.{kind}_sha256="))]
        keys = [f"++{w}" if w.startswith(f"{kind}.") else w for w in rest]
        found = [f"{kind}=_own", *keys, f"++{kind}.name={part.name}", f"parts.{kind}={part}"]
        sha256 = load(part)
        noted(part, sha256)
        found.append(f"parts.{kind}_sha256={sha256}")
    return found


def completed(config: RunConfig, words: Sequence[str]) -> RunConfig:
    """The configuration with every key of the parts from outside.

    Keys that a preset has and the part lacks are left out; those of the command line stay, to be refused.

    Raises:
        CaliperError: a key without a default has no value.
    """
    for kind in KINDS:
        if getattr(config.parts, kind) is None:
            continue
        given = getattr(config, kind)
        wanted = {word.partition("=")[0].removeprefix(f"++{kind}.") for word in words}
        known = options(kind, given["name"])
        missing = [
            key for key, value in known.items() if value is inspect.Parameter.empty and key not in given
        ]
        if missing:
            raise CaliperError(f"{kind}={given['name']} needs a value for {kind}.{missing[0]}")
        defaults = {key: _plain(value) for key, value in known.items()}
        own = {key: value for key, value in given.items() if key in known or key in wanted}
        setattr(config, kind, {"name": given["name"], **defaults, **own})
    return config


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def recorded(config: RunConfig, words: Sequence[str], folder: Path) -> dict[str, str]:
    """Loads the parts from outside that a run folder names, if that may be.

    Args:
        config: of the run.
        words: of the command line; one that names a part allows it.
        folder: of the run.

    Returns:
        Where the parts are now and the SHA-256 of their code, by the key of `parts`.

    Raises:
        CaliperError: the code is missing, has changed, or was never run by this user; says what runs it.
    """
    found: dict[str, str] = {}
    for kind in KINDS:
        saved = getattr(config.parts, kind)
        said = [w.partition("=")[2] for w in words if w.startswith(f"parts.{kind}=")]
        if saved is None:
            if said:
                raise CaliperError(
                    f"parts.{kind}={said[-1]}: {folder} has no {kind} from outside; leave it out"
                )
            continue
        part = find(kind, said[-1] if said else saved)
        if not said:
            require_known(part, getattr(config.parts, f"{kind}_sha256"), folder)
        _require_same_name(part, getattr(config, kind)["name"], folder)
        sha256 = load(part)
        noted(part, sha256)
        found |= {kind: str(part), f"{kind}_sha256": sha256}
    return found


def with_parts(config: RunConfig, found: dict[str, str]) -> RunConfig:
    """The configuration, whose parts from outside are where they were found."""
    return replace(config, parts=replace(config.parts, **found))


def _require_same_name(part: Part, name: str, folder: Path) -> None:
    if part.name != name:
        raise CaliperError(f"parts.{part.kind}={part}: {folder} was made with {name}, not {part.name}")
