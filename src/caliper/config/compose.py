"""From a command line, or a run's own config.yaml, to a checked configuration and back."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from caliper.config import own_parts
from caliper.config.cameras import listed
from caliper.config.changes import changes, refuse_changes
from caliper.config.meanings import choices
from caliper.config.messages import (
    GROUPS,
    require_pair,
    sentence,
    several_values,
    unknown,
    unknown_key,
)
from caliper.config.own_task import expanded, named
from caliper.config.schema import RunConfig
from caliper.errors import CaliperError
from caliper.utils.foreign import ForeignFileError, read_yaml

PATHS = (  # values that are taken letter by letter
    *("run_dir", "data.path", "data.prior.path", "data.demonstrations", "task.code"),
    *("parts.encoder", "parts.agent", "encoder.weights"),
)
SEVERAL = "data.path"  # that of them which may be a list
LISTS = (
    ("task", "cameras"),
    ("task", "proprio"),
    ("task", "robots"),
    ("evaluation", "appearance"),
)  # of words
OF_ITS_USE = {  # keys that say how a dataset is seen, not what is in it
    *("obs", "cameras", "size", "depth", "segmentation", "frame_stack", "proprio", "code_sha256"),
    *("copies", "appearance", "prior", "rewards", "content"),
}


def compose(overrides: list[str]) -> RunConfig:
    """The configuration that a command line's words make.

    Raises:
        CaliperError: an unknown group choice or key, or a value of the wrong type.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    overrides = expanded(overrides)  # first: the words of a file are held to the same
    for word in overrides:
        require_pair(word)
        _require_path(word)
        _require_name(word)
    overrides = own_parts.expanded(overrides)
    words = [_free(listed(quoted(word))) for word in overrides]
    ConfigStore.instance().store(name="run_schema", node=RunConfig)  # what configs/train.yaml extends
    try:
        with initialize_config_module("caliper.configs", version_base="1.3"):
            config = _fitted(_typed(hydra_compose("train", overrides=words)), overrides)
    except (HydraException, OmegaConfBaseException) as error:
        if str(error).startswith(("Ambiguous value", "Sweep parameters")):
            raise several_values(next(word for word in words if word in str(error))) from error
        if "nterpolation" in str(error) and (odd := [word for word in overrides if "${" in word]):
            raise CaliperError(f"{odd[0]}: {str(error).splitlines()[0]}; give a value") from error
        raise CaliperError(sentence(error)) from error
    return named(own_parts.completed(config, overrides))


def quoted(word: str) -> str:
    """A pair whose value is a path, in quotes for Hydra: a path may have spaces and any letters."""
    key, _, value = word.partition("=")
    if key not in PATHS or value in ("", "null") or value[0] in "'\"":
        return word
    if key == SEVERAL and (names := several(value)) is not None:
        return f"{key}=[{','.join(_in_quotes(name) for name in names)}]"
    return f"{key}={_in_quotes(value)}"


def _require_path(word: str) -> None:
    """Refuses a path that is none, or that OmegaConf would take for a reference to another key."""
    key, _, value = word.partition("=")
    if key in PATHS and not value:
        raise CaliperError(f"{word} names nothing; give a path, or leave it out")
    if key in PATHS and (value == "~" or value.startswith("~/")):
        raise CaliperError(f'{word}: here ~ would be a folder of that name; write {key}="$HOME"{value[1:]}')
    if key in PATHS and ("${" in value or any("\ud800" <= c <= "\udfff" for c in value)):
        what = "with ${ in it" if "${" in value else "that is not UTF-8"
        raise CaliperError(f"{word}: a path {what} cannot be kept in a configuration; choose another")


def _require_name(word: str) -> None:
    """Refuses what is no name of a group's choice, such as agent=5 or task=null."""
    group, _, value = word.partition("=")
    number = re.fullmatch(r"[-+]?(\.?\d[\d_.e+-]*|null|true|false|nan|inf)", value, re.IGNORECASE)
    if group in GROUPS and (number or value[:1] in ("", "{", "[")):
        there = (path.name for path in files("caliper.configs").joinpath(group).iterdir())
        known = sorted(name.removesuffix(".yaml") for name in there if name.endswith(".yaml"))
        raise CaliperError(unknown(group, value, known))


def _free(word: str) -> str:
    """A pair that goes to an environment's constructor, which alone knows its keys; others as they are."""
    if word.startswith("task.kwargs={") and word != "task.kwargs={}":
        raise CaliperError(f"{word}: give each key by itself, such as task.kwargs.reward_shaping=true")
    return f"++{word}" if word.startswith("task.kwargs.") else word


def _in_quotes(text: str) -> str:
    return "'{}'".format(text.replace("\\", "\\\\").replace("'", "\\'"))


def several(value: str) -> list[str] | None:
    """The paths in [a,b], unless that is itself the name of a file; None for a single path."""
    if not (value.startswith("[") and value.endswith("]")) or Path(value).exists():
        return None
    return [name.strip() for name in value[1:-1].split(",") if name.strip()]


def load(path: Path, overrides: Sequence[str] = (), purpose: str = "evaluate") -> RunConfig:
    """A run's own config.yaml with some values changed, checked against the schema.

    Args:
        path: the file.
        overrides: pairs.
        purpose: "resume" or "evaluate": what the other values are for.

    Raises:
        CaliperError: the file is not a run's configuration, or an override does not fit it, or changes what
            the purpose does not allow.
    """
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    for word in overrides:
        require_pair(word)
        _require_path(word)
    try:
        content = read_yaml(path)
    except ForeignFileError as error:
        raise CaliperError(f"{path} is not the configuration of a run: it {error}") from error
    try:
        read = OmegaConf.merge(OmegaConf.structured(RunConfig), usual_values(), content)
        saved = _fitted(_typed(read), [])
    except Exception as error:  # OmegaConf passes on whatever the values lead it to
        reason = (str(error) or repr(error)).splitlines()[0]
        raise CaliperError(f"{path} is not the configuration of a run ({reason}); name another") from error
    for group in ("agent", "encoder"):
        if not isinstance(getattr(saved, group).get("name"), str):
            raise CaliperError(f"{path} is not the configuration of a run: its {group} has no name")
    try:
        schema, pairs = OmegaConf.structured(RunConfig), _pairs(overrides, purpose)
        asked = OmegaConf.merge(schema, OmegaConf.create(asdict(saved)), pairs)
        config = _fitted(_typed(asked), overrides)
    except (OmegaConfBaseException, YAMLError) as error:
        said = sentence(error)
        told = any(word.partition("=")[0] in said for word in overrides)
        raise CaliperError(said if told else f"{' '.join(overrides)} does not fit: {said}") from error
    for group in ("agent", "encoder"):  # whose keys depend on the choice: the schema knows none
        had, has = getattr(saved, group), getattr(config, group)
        if new := [name for name in has if name not in had and name not in _known(group, had)]:
            raise CaliperError(unknown_key(f"{group}.{new[0]}", had))
    refuse_changes(changes(saved, config), purpose, path.parent, str(saved.agent.get("name")))
    return config


def _pairs(words: Sequence[str], purpose: str) -> Any:
    """The values of a command line's pairs, where no groups can be chosen."""
    plain = []
    for word in words:
        key, _, value = word.partition("=")
        if key in GROUPS:
            what = "evaluated" if purpose == "evaluate" else "resumed"
            raise CaliperError(
                f"{word} chooses what a run is made of, which is settled when it begins; a run is "
                f"{what} with values such as evaluation.episodes=100"
            )
        if value == "???":  # which OmegaConf would take for the value that there is
            raise CaliperError(f"{word}: give a value, or leave it out")
        if "," in value and not value.startswith(("[", "{", "'", '"')) and key not in PATHS:
            raise several_values(word, begun=True)
        if key in PATHS and value != "null":
            names = several(value) if key == SEVERAL else None
            word = f"{key}={json.dumps(value if names is None else names)}"
        plain.append(word)
    return OmegaConf.from_dotlist(plain)


def usual_values() -> dict[str, Any]:
    """The values of train.yaml, which the groups' files and the command line change."""
    values: dict[str, Any] = yaml.safe_load(
        files("caliper.configs").joinpath("train.yaml").read_text(encoding="utf-8")
    )
    return {key: value for key, value in values.items() if key != "defaults"}


def collect_command(config: RunConfig) -> str:
    """The command that collects the same dataset."""
    task = f"task={config.task.name if config.task.code is None else 'lift'}"
    usual = asdict(compose([task]))
    words = [
        f"{group}.{key}={json.dumps(value, separators=(',', ':')) if isinstance(value, list) else value}"
        for group in ("task", "data")
        for key, value in asdict(config)[group].items()
        if value != usual[group][key] and key not in OF_ITS_USE
    ]
    return shlex.join(["caliper", "collect", task, *words])


def to_yaml(config: RunConfig) -> str:
    """The resolved configuration as YAML."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def _fitted(config: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """Without what a preset, or an earlier version, sets for other agents.

    What the command line sets stays, so that a key which the agent lacks is refused there.
    """
    from caliper.agents import AGENTS

    keys = {name: {field.name for field in fields(make)} for name, (_, make) in AGENTS.items()}
    if (name := config.agent.get("name")) not in keys:
        return config
    wanted = {word.partition("=")[0].lstrip("+").removeprefix("agent.") for word in overrides}
    foreign = set().union(*keys.values()) - keys[name]
    own = {k: v for k, v in config.agent.items() if k not in foreign or k in wanted}
    order = ["name", *(field.name for field in fields(AGENTS[name][1]))]
    config.agent = {key: own[key] for key in order if key in own} | own
    return config


def _known(group: str, chosen: Mapping[str, Any]) -> set[str]:
    """Keys of a run's agent or encoder, of which an older config.yaml may lack some."""
    return set(choices(group).get(str(chosen.get("name")), ()))


def _typed(cfg: Any) -> RunConfig:
    """A checked configuration as plain dataclasses."""
    OmegaConf.resolve(cfg)
    run: RunConfig = OmegaConf.to_object(cfg)  # type: ignore[assignment]  # the schema makes it one
    for section, name in LISTS:  # OmegaConf lets lists and mappings pass for words
        if odd := [entry for entry in getattr(getattr(run, section), name) if not isinstance(entry, str)]:
            key = f"{section}.{name}"
            raise CaliperError(f"{key} does not fit: {odd[0]} is no word; write {key}=[a,b]")
    return run
