"""Tasks of one's own: a YAML file beside a Python file, anywhere, named on the command line.

The Python file runs when its user names it (`task=./my_task.yaml`, or `task.code=FILE`); its SHA-256 is then
noted among the user's caches and in the run. A run folder's own word is not enough: code that this user has
not run before, or that is not what the run began with, is refused until it is named again.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from caliper.config.cameras import as_list
from caliper.config.schema import RunConfig
from caliper.errors import CaliperError
from caliper.utils.cache import cache_folder
from caliper.utils.foreign import ForeignFileError, read_yaml

KEY = "task.code"
_loaded: dict[str, str] = {}  # the SHA-256 of the code by the task's name


def expanded(words: Sequence[str]) -> list[str]:
    """A command line whose `task=FILE.yaml` is replaced by what the file says; the other words win over it.

    Raises:
        CaliperError: there is no such file, or it is no description of a task.
    """
    found: list[str] = []
    for word in words:
        key, _, value = word.partition("=")
        if key == "task" and value.endswith((".yaml", ".yml")):
            found = [*_described(Path(value)), *found]
        else:
            found.append(word)
    return found


def _described(path: Path) -> list[str]:
    """The words that a file stands for."""
    try:
        content = read_yaml(path)
    except ForeignFileError as error:
        raise CaliperError(f"task={path}: the file {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("code"), str):
        raise CaliperError(f"task={path} must say code: FILE.py, the Python file of its Task, and task: ...")
    code = (path.parent / content.pop("code")).resolve()
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
    text = _read(path)
    sha256 = hashlib.sha256(text).hexdigest()
    _load(path, text, sha256, config.task.name)
    _note(sha256, path)
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
    path = Path(code)
    if not path.is_file():
        raise CaliperError(f"{folder} needs the Python code of its task, and {path} is gone; say {KEY}=FILE")
    sha256 = hashlib.sha256(_read(path)).hexdigest()
    if sha256 != config.task.code_sha256:
        raise CaliperError(
            f"{path} is not the code that {folder} began with; if it still is the same task, say {KEY}={path}"
        )
    if sha256 not in _noted():
        raise CaliperError(
            f"{folder} would run Python code that you have not run before: {path}. Read it, and if you trust "
            f"it, say {KEY}={path}"
        )
    return named(config)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CaliperError(f"{KEY}: {path} cannot be read ({error.strerror})") from error


def _load(path: Path, text: bytes, sha256: str, name: str) -> None:
    """Runs the file, once in a process, and makes its task known."""
    from caliper.envs.sim import task_scene
    from caliper.envs.tasks import TASKS, Task

    if _loaded.get(name) == sha256:
        return
    if name in TASKS and name not in _loaded:
        raise CaliperError(f"task.name={name} is one of Caliper's own tasks; give yours another name")
    spec = importlib.util.spec_from_file_location(f"caliper_own_task_{sha256[:16]}", path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # dataclasses look their module up
    try:
        exec(compile(text, path, "exec"), module.__dict__)
    except Exception as error:  # whatever the user's code raises
        raise CaliperError(f"{path} fails: {type(error).__name__}: {error}") from error
    tasks = [t for t in vars(module).values() if isinstance(t, type) and issubclass(t, Task)]
    found = [t for t in tasks if getattr(t, "name", None) == name and t.__module__ == module.__name__]
    if len(found) != 1:
        raise CaliperError(f"{path} must define one class of caliper.envs.tasks.Task with name = '{name}'")
    TASKS[name] = found[0]
    _loaded[name] = sha256
    task_scene.cache_clear()  # it may hold a scene of that name


def _notes() -> Path:
    return cache_folder() / "own_tasks.txt"


def _noted() -> set[str]:
    """SHA-256 of each code that this user has run."""
    with suppress(OSError, UnicodeDecodeError):
        return {line.split(" ", 1)[0] for line in _notes().read_text(encoding="utf-8").splitlines()}
    return set()


def _note(sha256: str, path: Path) -> None:
    if sha256 in _noted():
        return
    with suppress(OSError):  # where nothing can be kept, the code has to be named each time
        _notes().parent.mkdir(parents=True, exist_ok=True)
        with open(_notes(), "a", encoding="utf-8") as file:
            file.write(f"{sha256} {path}\n")
