"""Tasks of one's own: a YAML file beside a Python file, anywhere, named on the command line.

The Python file runs when its user names it (`task=./my_task.yaml`, or `task.code=FILE`); its SHA-256 is then
noted among the user's caches and in the run. A run folder's own word is not enough: code that this user has
not run before, or that is not what the run began with, is refused until it is named again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import entry_points
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from caliper.config.cameras import as_list
from caliper.config.schema import RunConfig
from caliper.errors import CaliperError
from caliper.utils import own_code
from caliper.utils.foreign import ForeignFileError, read_yaml

KEY = "task.code"
_loaded: dict[str, str] = {}  # the SHA-256 of the code by the task's name


def expanded(words: Sequence[str]) -> list[str]:
    """A command line whose `task=FILE.yaml` is replaced by what the file says; the other words win over it.

    So is the name of a task that an installed package offers.

    Raises:
        CaliperError: there is no such file, or it is no description of a task.
    """
    found: list[str] = []
    for word in words:
        key, _, value = word.partition("=")
        if key == "task" and value in offered("task"):
            value = str(_beside(value))
        if key == "task" and value.endswith((".yaml", ".yml")):
            found = [*_described(Path(value)), *found]
        else:
            found.append(word)
    return found


def offered(group: str) -> list[str]:
    """Tasks, encoders or agents that installed packages offer and Caliper has none of that name."""
    ours = files("caliper.configs").joinpath(group)
    found = entry_points(group=f"caliper.{group}s")
    return sorted(e.name for e in found if not ours.joinpath(f"{e.name}.yaml").is_file())


def _beside(name: str) -> Path:
    """The YAML file of a task that an installed package offers: beside the module of its class."""
    (entry,) = [entry for entry in entry_points(group="caliper.tasks") if entry.name == name]
    found = find_spec(entry.module)
    if found is None or found.origin is None:
        raise CaliperError(f"task={name}: the module {entry.module} that is to hold it is not there")
    path = Path(found.origin).with_suffix(".yaml")
    if not path.is_file():
        raise CaliperError(f"task={name}: {path} is to describe it, beside its module, and is not there")
    return path


def _described(path: Path) -> list[str]:
    """The words that a file stands for."""
    try:
        content = read_yaml(path)
    except ForeignFileError as error:
        raise CaliperError(f"task={path}: the file {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("code"), str):
        raise CaliperError(f"task={path} must say code: FILE.py, the Python file of its Task, and task: ...")
    try:
        code = (path.parent / content.pop("code")).resolve()
    except RuntimeError as error:
        raise CaliperError(f"task={path}: its code is a link in a circle") from error
    task = content.get("task")
    if not isinstance(task, dict) or not isinstance(task.get("name"), str):
        raise CaliperError(f"task={path} must say, under task:, its name, as in the Task's `name`")
    words = [f"{key}={value}" for key, value in _leaves(content)]
    return ["task=lift", *words, f"{KEY}={_in_quotes(str(code))}"]


def _leaves(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        if name == "task.cameras":
            value = as_list(value)
        if isinstance(value, dict) and value:
            found += _leaves(value, f"{name}.")
        else:
            found.append((name, _in_quotes(value) if isinstance(value, str) else json.dumps(value)))
    return found


def _in_quotes(text: str) -> str:
    return "'{}'".format(text.replace("\\", "\\\\").replace("'", "\\'"))


def named(config: RunConfig) -> RunConfig:
    """The configuration with its code loaded and noted, because its user has named the file.

    Raises:
        CaliperError: there is no such file, or it fails, or has no such task.
    """
    if config.task.code is None:
        return config
    path = Path(config.task.code).resolve()
    text, sha256 = own_code.read(path, KEY)
    _load(path, text, sha256, config.task.name)
    own_code.note(sha256, path)
    return replace(config, task=replace(config.task, code=str(path), code_sha256=sha256))


def recorded(config: RunConfig, words: Sequence[str], folder: Path) -> RunConfig:
    """The configuration of a run folder with its code loaded, if that may be.

    Args:
        config: of the run, and what the command line changes of it.
        words: of the command line; one that names the code allows it.
        folder: of the run.

    Raises:
        CaliperError: the code is missing, has changed, or was never run by this user; says what runs it.
    """
    code = config.task.code
    if code is None or any(word.startswith(f"{KEY}=") for word in words):
        return named(config)
    own_code.require_known(Path(code), config.task.code_sha256, folder, "task", f"{KEY}=FILE", code)
    return named(config)


def _load(path: Path, text: bytes, sha256: str, name: str) -> None:
    """Runs the file, once in a process, and makes its task known."""
    from caliper.envs.sim import task_scene
    from caliper.envs.tasks import TASKS, Task

    if _loaded.get(name) == sha256:
        return
    if name in TASKS and name not in _loaded:
        raise CaliperError(f"task.name={name} is one of Caliper's own tasks; give yours another name")
    module = own_code.run(path, text, sha256)
    tasks = [t for t in vars(module).values() if isinstance(t, type) and issubclass(t, Task)]
    found = [t for t in tasks if getattr(t, "name", None) == name and t.__module__ == module.__name__]
    if len(found) != 1:
        raise CaliperError(f"{path} must define one class of caliper.envs.tasks.Task with name = '{name}'")
    TASKS[name] = found[0]
    _loaded[name] = sha256
    task_scene.cache_clear()  # it may hold a scene of that name
