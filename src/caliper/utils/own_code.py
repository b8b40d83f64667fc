"""Python files that are not Caliper's: read, run once in a process, and remembered as run by this user.

A file runs with all its user's rights, so whoever calls `run` must know that its user wants it. The notes
among the caches, a SHA-256 a line, tell later whether this user has run the very same text before.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from caliper.errors import CaliperError, no_file
from caliper.utils.cache import cache_folder

_modules: dict[str, ModuleType] = {}  # by the SHA-256 of their text


def read(path: Path, key: str) -> tuple[bytes, str]:
    """A file's text and its SHA-256.

    Args:
        path: the file.
        key: that named it, for the message.

    Raises:
        CaliperError: it cannot be read.
    """
    if fault := no_file(path):  # a pipe would be waited for, a device read for ever
        raise CaliperError(f"{key}: {path} cannot be read: it {fault}")
    try:
        text = path.read_bytes()
    except OSError as error:
        raise CaliperError(f"{key}: {path} cannot be read ({error.strerror})") from error
    return text, hashlib.sha256(text).hexdigest()


def run(path: Path, text: bytes, sha256: str) -> ModuleType:
    """Runs a file's text, once in a process.

    Raises:
        CaliperError: it fails, with whatever error.
    """
    if sha256 in _modules:
        return _modules[sha256]
    spec = importlib.util.spec_from_file_location(f"caliper_own_{sha256[:16]}", path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # dataclasses look their module up
    try:
        exec(compile(text, path, "exec"), module.__dict__)
    except Exception as error:  # whatever the user's code raises
        del sys.modules[module.__name__]
        raise CaliperError(f"{path} fails: {type(error).__name__}: {error}") from error
    _modules[sha256] = module
    return module


def notes() -> Path:
    """Where it is kept which code this user has run."""
    return cache_folder() / "own_code.txt"


def noted(sha256: str) -> bool:
    """Whether this user has run a file of that SHA-256."""
    with suppress(OSError, UnicodeDecodeError):
        lines = notes().read_text(encoding="utf-8").splitlines()
        return sha256 in {line.split(" ", 1)[0] for line in lines}
    return False


def note(sha256: str, path: Path) -> None:
    """Notes that this user has run a file."""
    if noted(sha256):
        return
    with suppress(OSError):  # where nothing can be kept, the code has to be named each time
        notes().parent.mkdir(parents=True, exist_ok=True)
        with open(notes(), "a", encoding="utf-8") as file:
            file.write(f"{sha256} {path}\n")


def require_known(path: Path, sha256: str | None, folder: Path, what: str, key: str, naming: str) -> None:
    """Refuses code that a run folder names, unless it is what the run began with and this user has run it.

    Args:
        path: the file.
        sha256: that the folder says it has.
        folder: of the run.
        what: the code is of, for the message.
        key: that names such a file, for the message.
        naming: what the key would have to say to name this file.

    Raises:
        CaliperError: the file is gone, has changed, or was never run by this user; says what runs it.
    """
    if no_file(path) is not None:
        raise CaliperError(f"{folder} needs the Python code of its {what}, and {path} is gone; say {key}")
    name = key.partition("=")[0]
    found = read(path, name)[1]
    if found != sha256:
        raise CaliperError(
            f"{path} is not the code that {folder} began with; if it still is the same {what}, say "
            f"{name}={naming}"
        )
    if not noted(found):
        raise CaliperError(
            f"{folder} would run Python code that you have not run before: {path}. Read it, and if you trust "
            f"it, say {name}={naming}"
        )
