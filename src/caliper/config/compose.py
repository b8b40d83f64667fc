"""From a command line, or a run's own config.yaml, to a checked configuration and back."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from caliper.config.messages import require_pair, sentence
from caliper.config.schema import OfflineConfig, RunConfig
from caliper.errors import CaliperError
from caliper.utils.foreign import ForeignFileError, read_yaml


def compose(overrides: list[str]) -> RunConfig:
    """The configuration that a command line's words make.

    Raises:
        CaliperError: an unknown group choice or key, or a value of the wrong type.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    for word in overrides:
        require_pair(word)
    ConfigStore.instance().store(name="run_schema", node=RunConfig)  # what configs/train.yaml extends
    try:
        with initialize_config_module("caliper.configs", version_base="1.3"):
            return _fitted(_typed(hydra_compose("train", overrides=overrides)), overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise CaliperError(sentence(error)) from error


def load(path: Path, overrides: list[str]) -> RunConfig:
    """A run's own config.yaml with some values changed, checked against the schema; see `_fitted`.

    Raises:
        CaliperError: the file is not a run's configuration, or an override does not fit it.
    """
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    for word in overrides:
        require_pair(word)
    try:
        content = read_yaml(path)
    except ForeignFileError as error:
        raise CaliperError(f"{path} is not the configuration of a run: it {error}") from error
    try:
        saved = OmegaConf.merge(OmegaConf.structured(RunConfig), content)
        OmegaConf.to_object(saved)  # also what is missing
    except Exception as error:  # OmegaConf passes on whatever the values lead it to
        reason = (str(error) or repr(error)).splitlines()[0]
        raise CaliperError(f"{path} is not the configuration of a run ({reason}); name another") from error
    try:
        return _fitted(_typed(OmegaConf.merge(saved, OmegaConf.from_dotlist(overrides))), overrides)
    except (OmegaConfBaseException, YAMLError) as error:
        raise CaliperError(sentence(error)) from error


def collect_command(config: RunConfig) -> str:
    """The command that collects the same dataset."""
    task = f"task={config.task.name}"
    usual = asdict(compose([task]))
    words = [
        f"{group}.{key}={json.dumps(value, separators=(',', ':')) if isinstance(value, list) else value}"
        for group in ("task", "data")
        for key, value in asdict(config)[group].items()
        if value != usual[group][key]
        and key not in ("obs", "copies", "appearance", "prior", "rewards", "content")  # of its use
    ]
    return shlex.join(["caliper", "collect", task, *words])


def to_yaml(config: RunConfig) -> str:
    """The resolved configuration as YAML."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def _fitted(config: RunConfig, overrides: list[str]) -> RunConfig:
    """Without what a preset, or an earlier version, sets for other agents, and without deviations not used.

    What the command line sets stays, so that a key which the agent lacks is refused there.
    """
    from caliper.agents import AGENTS

    keys = {name: {field.name for field in fields(make)} for name, (_, make) in AGENTS.items()}
    if (name := config.agent.get("name")) not in keys:
        return config
    wanted = {word.partition("=")[0].lstrip("+").removeprefix("agent.") for word in overrides}
    foreign = set().union(*keys.values()) - keys[name]
    config.agent = {k: v for k, v in config.agent.items() if k not in foreign or k in wanted}
    published = {field.name: field.default for field in fields(AGENTS[name][1])}
    published |= {"batch_size": RunConfig.batch_size, "clone_updates": OfflineConfig.clone_updates}
    now = config.agent | {"batch_size": config.batch_size, "clone_updates": config.offline.clone_updates}
    config.deviations = {
        key: words
        for key, words in config.deviations.items()
        if key in now and now[key] != published.get(key)
    }
    return config


def _typed(cfg: Any) -> RunConfig:
    """A checked configuration as plain dataclasses."""
    OmegaConf.resolve(cfg)
    run: RunConfig = OmegaConf.to_object(cfg)  # type: ignore[assignment]  # the schema makes it one
    return run
