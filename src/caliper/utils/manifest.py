"""The list of a checkpoint's files, with a SHA-256 of each, and which checkpoint is the newest."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from caliper.utils.foreign import ForeignFileError, file_digest, read_json, read_text, write_json

NAME = "manifest.json"
_NUMBER = re.compile(r"[0-9]{6,12}")


def complete(root: Path) -> list[Path]:
    """The complete checkpoints of a folder `checkpoints`, oldest first."""
    found = (p for p in root.iterdir() if _NUMBER.fullmatch(p.name) and p.is_dir())
    return sorted(found, key=lambda p: int(p.name))


def latest(root: Path) -> Path:
    """The checkpoint that `latest` names.

    Raises:
        ForeignFileError: it names none, or one that is not inside of `root`.
    """
    name = read_text(root / "latest", 100).strip()
    path = root / name
    if not _NUMBER.fullmatch(name) or not path.is_dir():
        raise ForeignFileError(f"names '{name}', which is no checkpoint here")
    if path.resolve().parent != root.resolve():
        raise ForeignFileError(f"names '{name}', which leads out of the run folder")
    return path


def write_manifest(checkpoint: Path, metrics: Mapping[str, Any] | None) -> None:
    """Notes every file of a checkpoint, and how far metrics.csv was when it was saved."""
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": file_digest(path)}
        for path in sorted(checkpoint.iterdir())
    }
    write_json(checkpoint / NAME, {"files": files, "metrics": metrics})


def check_manifest(checkpoint: Path, needed: tuple[str, ...]) -> None:
    """Compares a checkpoint's files with its list.

    Raises:
        ForeignFileError: there is no list, or a file is missing in it, or is another.
    """
    if not (checkpoint / NAME).exists():
        raise ForeignFileError(f"has no {NAME}")
    files = read_json(checkpoint / NAME).get("files")
    for name in needed:
        said = files.get(name) if isinstance(files, dict) else None
        path = checkpoint / name
        if not path.is_file() or path.is_symlink():
            raise ForeignFileError(f"lacks {name}")
        if not isinstance(said, dict) or said != {"bytes": path.stat().st_size, "sha256": file_digest(path)}:
            raise ForeignFileError(f"has another {name} than was saved (its checksum differs)")


def saved_metrics(folder: Path) -> tuple[int, str] | None:
    """How many rows metrics.csv had when a run's newest checkpoint was saved, and their SHA-256, if known."""
    try:
        said = read_json(latest(folder / "checkpoints") / NAME).get("metrics")
    except ForeignFileError:
        return None
    if isinstance(said, dict) and type(said.get("rows")) is int and type(said.get("sha256")) is str:
        return said["rows"], said["sha256"]
    return None
