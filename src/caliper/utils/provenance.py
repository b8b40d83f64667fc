"""Where and with what a run was made: the state of the code, hardware, versions."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from caliper.machine import cores
from caliper.utils.foreign import file_digest

PACKAGES = (
    "caliper-rl",
    "torch",
    "mujoco",
    "mujoco-warp",
    "warp-lang",
    "robosuite",
    "gymnasium-robotics",
    "numpy",
)
CODE = ("*.py", "configs/*.yaml")  # of a checkout, what makes the numbers
SOURCE = Path(__file__).parent  # Caliper's own code, in a checkout or where pip has put it


def provenance(source: Path = SOURCE, directory: Path | None = None) -> dict[str, Any]:
    """Where and with what a run starts: the contents of git.json.

    Args:
        source: a folder of Caliper's code.
        directory: the user's own; the working directory by default.

    Returns:
        caliper and directory (each as `checkout`), started (ISO 8601, UTC), hardware, versions.
    """
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "caliper": checkout(source, owner="caliper-rl"),
        "directory": checkout(Path.cwd() if directory is None else directory),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": _hardware(),
        "versions": versions,
    }


def checkout(folder: Path, owner: str | None = None) -> dict[str, Any]:
    """The state of the git repository around a folder.

    Args:
        folder: inside of it, or of none.
        owner: the distribution whose repository it has to be; a folder of site-packages inside the user's own
            repository is not a checkout of ours.

    Returns:
        commit, and dirty and diff (SHA-256 of what differs from the commit, 16 digits; null if nothing does;
        of ours, new files of code count); all null outside of a repository.
    """
    none = {"commit": None, "dirty": None, "diff": None}
    top = _git(folder, "rev-parse", "--show-toplevel")
    if top is None or (owner and not _declares(Path(top), owner)):
        return none
    changed = _git(folder, "diff", "HEAD", "--binary", "--no-ext-diff", "--no-textconv")
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None or changed is None:  # no commit yet
        return none
    if owner:
        changed += _new_code(Path(top))
    digest = hashlib.sha256(changed.encode(errors="surrogateescape")).hexdigest()[:16] if changed else None
    return {"commit": commit, "dirty": bool(changed), "diff": digest}


def _new_code(top: Path) -> str:
    """Code that git does not know yet, by name and checksum: it runs, too, and no diff shows it."""
    listed = _git(top, "ls-files", "--others", "--exclude-standard", "-z", "--", *CODE) or ""
    found = (top / name for name in listed.split("\0") if name)
    return "".join(f"{path.relative_to(top)} {file_digest(path)}\n" for path in found if path.is_file())


def in_words(state: Mapping[str, Any] | None) -> str:
    """A `checkout` in words; empty outside of a repository."""
    if not state or not state.get("commit"):
        return ""
    changes = f" with local changes (diff {state.get('diff')})" if state.get("dirty") else ""
    return f"{state['commit']}{changes}"


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says of the repository around a folder, whatever the environment names; None if there is none.

    No program that the repository's own configuration names is run: it may be a stranger's.
    """
    command = ["git", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments]
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(command, capture_output=True, check=True, timeout=60, env=env)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="surrogateescape").strip()


def _declares(folder: Path, distribution: str) -> bool:
    try:
        return f'name = "{distribution}"' in (folder / "pyproject.toml").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False


def _hardware() -> str:
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{cores()} cores of {name}, {gpu}"
