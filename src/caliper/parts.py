"""Encoders and agents from outside: a class in a Python file, or one that an installed package offers.

A file is named as FILE.py:CLASS. A package names its classes as entry points, in the groups
`caliper.encoders` and `caliper.agents`. Once loaded, a class is in the table of Caliper's own, by the name of
the class or of the entry point, and everything that builds by name builds it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_type_hints

from caliper.agents import AGENTS, Agent
from caliper.agents.base import AgentConfig
from caliper.encoders import ENCODERS, Encoder
from caliper.errors import CaliperError
from caliper.utils import own_code

KINDS = ("encoder", "agent")
_loaded: dict[tuple[str, str], str] = {}  # the SHA-256 of the code by kind and name


@dataclass(frozen=True, slots=True)
class Part:
    """Where a class is that was made outside.

    Attributes:
        kind: "encoder" or "agent".
        path: the Python file.
        name: by which the part is built: of the class, or of the entry point.
        entry: the entry point, None for a file that was named.
    """

    kind: str
    path: Path
    name: str
    entry: EntryPoint | None = None

    def __str__(self) -> str:
        """What names it again, from any folder."""
        return self.name if self.entry else f"{self.path}:{self.name}"


def installed(kind: str) -> dict[str, EntryPoint]:
    """What installed packages offer of a kind, by name."""
    return {entry.name: entry for entry in entry_points(group=f"caliper.{kind}s")}


def find(kind: str, word: str) -> Part:
    """The part that a word names, without running anything of it.

    Raises:
        CaliperError: it is neither FILE.py:CLASS nor the name of an installed one.
    """
    path, _, name = word.rpartition(":")
    if path.endswith(".py"):
        try:
            return Part(kind, Path(path).resolve(), name)
        except RuntimeError as error:
            raise CaliperError(f"{kind}={word}: {path} is a link in a circle") from error
    if word.endswith(".py"):
        raise CaliperError(f"{kind}={word}: name the class in that file too: {kind}={word}:MyClass")
    entry = installed(kind).get(word)
    if entry is None:
        raise CaliperError(
            f"{kind}={word} is neither FILE.py:CLASS nor the name of an installed part; the package that "
            f"offers it as caliper.{kind}s has to be installed"
        )
    found = find_spec(entry.module)
    if found is None or found.origin is None:
        raise CaliperError(f"{kind}={word}: the module {entry.module} that is to hold it is not there")
    return Part(kind, Path(found.origin), word, entry)


def load(part: Part) -> str:
    """Runs a part's code and puts its class into the table; returns the SHA-256 of the file.

    Raises:
        CaliperError: the file cannot be read or fails, its class is not there or is no encoder or agent, or
            it has the name of one of Caliper's own.
    """
    text, sha256 = own_code.read(part.path, part.kind)
    key = part.kind, part.name
    if _loaded.get(key) == sha256:
        return sha256
    table: dict[str, Any] = ENCODERS if part.kind == "encoder" else AGENTS
    if part.name in table and key not in _loaded:
        raise CaliperError(
            f"{part.kind}={part}: {part.name} is one of Caliper's own; give yours another name"
        )
    if part.entry is None:
        found = vars(own_code.run(part.path, text, sha256)).get(part.name)
    else:
        try:
            found = part.entry.load()
        except Exception as error:  # whatever the package's code raises
            raise CaliperError(
                f"{part.kind}={part} of {part.path} fails: {type(error).__name__}: {error}"
            ) from error
    base: type[Encoder] | type[Agent] = Encoder if part.kind == "encoder" else Agent
    if not (isinstance(found, type) and issubclass(found, base)):
        raise CaliperError(
            f"{part.path} must define a class {part.entry.attr if part.entry else part.name} of "
            f"{base.__module__}.{base.__name__}"
        )
    table[part.name] = (found, _config_of(found, part)) if issubclass(found, Agent) else found
    _loaded[key] = sha256
    return sha256


def noted(part: Part, sha256: str) -> None:
    """Notes that this user has named and run a part's file; what is installed needs no note."""
    if part.entry is None:
        own_code.note(sha256, part.path)


def require_known(part: Part, sha256: str | None, folder: Path) -> None:
    """Refuses a part that a run folder names, unless it may run, see `own_code.require_known`.

    What an installed package offers was chosen by whoever installed it; it has to be what the run began with.

    Raises:
        CaliperError: the file is gone, has changed, or was never run by this user; says what runs it.
    """
    key = f"parts.{part.kind}"
    if part.entry is None:
        own_code.require_known(part.path, sha256, folder, part.kind, f"{key}=FILE.py:{part.name}", str(part))
    elif own_code.read(part.path, key)[1] != sha256:
        raise CaliperError(
            f"{part.path}, which {part.name} comes from, is not the code that {folder} began with; if it "
            f"still is the same {part.kind}, say {key}={part}"
        )


def options(kind: str, name: str) -> dict[str, Any]:
    """The keys of a loaded part, with their defaults; `inspect.Parameter.empty` where there is none."""
    if kind == "agent":
        config = AGENTS[name][1]()
        return {field.name: getattr(config, field.name) for field in fields(config)}
    taken = inspect.signature(ENCODERS[name]).parameters
    return {key: parameter.default for key, parameter in taken.items() if key != "spec"}


def exported(parts: Any, folder: Path, trusted: bool) -> None:
    """Loads the parts of an exported policy's card, if they may be.

    Args:
        parts: of a card that nobody has checked; by kind: the name, the file's SHA-256, and
            whether a package offers it.
        folder: the policy's, which holds a copy of each file.
        trusted: whether their code may run though this user has never run it.

    Raises:
        CaliperError: they may not; says what allows it. Or one of them is missing or has changed.
    """
    for kind in (kind for kind in KINDS if isinstance(parts, Mapping) and kind in parts):
        said = parts[kind] if isinstance(parts[kind], Mapping) else {}
        name, sha256, offered = said.get("name"), said.get("sha256"), said.get("installed")
        if not (isinstance(name, str) and name.isidentifier() and isinstance(sha256, str)):
            raise CaliperError(f"{folder}: the card's '{kind}' from outside has no proper name and SHA-256")
        if _loaded.get((kind, name)) == sha256:
            continue
        part = find(kind, name) if offered else Part(kind, folder / f"{kind}.py", name)
        found = own_code.read(part.path, kind)[1]
        if not trusted and found != sha256:
            raise CaliperError(f"{part.path} is not the code of the {kind} that the policy was made with")
        if not trusted and not offered and not own_code.noted(found):
            raise CaliperError(
                f"{folder} needs its author's Python code, which you have not run before: {part.path}. Read "
                "it, and if you trust it, say trusted=True (caliper serve: --trusted)"
            )
        noted(part, load(part))


def _config_of(agent: type[Agent], part: Part) -> type[AgentConfig]:
    """The dataclass that an agent's annotation `config` names."""
    config = get_type_hints(agent).get("config")
    if not (isinstance(config, type) and is_dataclass(config) and issubclass(config, AgentConfig)):
        raise CaliperError(
            f"{part.path}: {agent.__name__} must say which dataclass holds its keys: config: MyConfig, with "
            "MyConfig of caliper.agents.base.AgentConfig"
        )
    return config
