"""Checkpoints that survive a kill at any moment and that never run code when they are loaded.

run/checkpoints/000007/{weights.safetensors, state.pt, manifest.json}
                                                          written under a temporary name, synced, renamed
run/checkpoints/latest                                    the name of the newest complete one
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from caliper.errors import CaliperError
from caliper.utils.files import replacing, sync
from caliper.utils.foreign import ForeignFileError
from caliper.utils.manifest import check_manifest, complete, latest, write_manifest

KEEP = 2
WEIGHTS, STATE = "weights.safetensors", "state.pt"
LEFT = re.compile(r"\.[0-9]{6,12}\.(partial|old)")  # what a killed process leaves; all else is not ours


def save_checkpoint(
    folder: Path | str,
    weights: Mapping[str, Tensor],
    state: Mapping[str, Any],
    metrics: Mapping[str, Any] | None = None,
) -> Path:
    """Saves a checkpoint of a run, and forgets all but the last two.

    Args:
        folder: the run folder.
        weights: a `state_dict`.
        state: the rest (optimisers, generators, counters, buffer): tensors, numbers, strings, lists, dicts.
        metrics: how far metrics.csv is, for the list of files (see `caliper.utils.manifest`).

    Returns:
        The new checkpoint's folder.

    Raises:
        CaliperError: it cannot be written. Earlier checkpoints stay whole.
        TypeError: `state` holds something that could not be loaded without running code.
    """
    _check_plain(state, "state")
    root = Path(folder) / "checkpoints"
    partial: Path | None = None
    try:
        root.mkdir(parents=True, exist_ok=True)
        found = complete(root)
        name = f"{int(found[-1].name) + 1 if found else 1:06d}"
        partial = root / f".{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        # Cloned on the CPU: safetensors refuses tensors that share memory, as a shared encoder's do.
        plain = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in weights.items()}
        save_file(plain, partial / WEIGHTS)
        with open(partial / STATE, "wb") as file:
            torch.save(state, file)
        write_manifest(partial, metrics)
        for path in (*partial.iterdir(), partial):
            sync(path)
        os.rename(partial, root / name)
        sync(root)
        with replacing(root / "latest") as pointer:
            pointer.write_text(name + "\n")
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        raise CaliperError(
            f"Cannot write a checkpoint to {root}: {reason}; free some space or permit writing, then resume."
        ) from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
    _prune(root)
    return root / name


def load_checkpoint(folder: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Loads a run's newest checkpoint onto the CPU.

    Returns:
        Weights and state as given to `save_checkpoint`.

    Raises:
        CaliperError: there is no checkpoint, or it is damaged, or it contains code.
    """
    root = Path(folder) / "checkpoints"
    if not (root / "latest").exists():
        raise CaliperError(
            f"{folder} holds no checkpoint; name a run folder with checkpoints/latest, or train one first."
        )
    found = complete(root)
    try:
        path = latest(root)
    except ForeignFileError as error:
        fix = f"write {found[-1].name} into it" if found else "train again"
        raise CaliperError(f"{root / 'latest'} {error}; {fix}.") from error
    if path != found[-1]:
        print(
            f"caliper: {root / 'latest'} names {path.name}, though {found[-1].name} is newer", file=sys.stderr
        )
    try:
        check_manifest(path, (WEIGHTS, STATE))
        weights = load_file(path / WEIGHTS)
        state = torch.load(path / STATE, map_location="cpu", weights_only=True)
        _check_plain(state, "state")
    # torch.load raises whatever the bytes lead it to (KeyError, EOFError, UnpicklingError, ...).
    except Exception as error:
        reason = str(error) if isinstance(error, ForeignFileError) else "holds something else than plain data"
        others = [p.name for p in found if p != path]
        fix = f"write {others[-1]} into {root / 'latest'} to go one back" if others else "train again"
        raise CaliperError(f"The checkpoint {path} is damaged: it {reason}; {fix}.") from error
    return weights, state


def _prune(root: Path) -> None:
    # Failing to tidy must not fail a save that has succeeded.
    with suppress(OSError):
        for old in complete(root)[:-KEEP]:
            doomed = root / f".{old.name}.old"
            os.rename(old, doomed)  # a half-deleted folder must not look whole
        for left in [path for path in root.iterdir() if LEFT.fullmatch(path.name)]:
            shutil.rmtree(left, ignore_errors=True)


def _check_plain(value: Any, where: str) -> None:
    if isinstance(value, Mapping):
        for key, entry in value.items():
            _check_plain(key, f"the key {key!r} of {where}")
            _check_plain(entry, f"{where}[{key!r}]")
    elif type(value) in (list, tuple):
        for i, entry in enumerate(value):
            _check_plain(entry, f"{where}[{i}]")
    elif not (isinstance(value, Tensor) or type(value) in (int, float, bool, str, bytes, type(None))):
        # By exact type: numpy's float64 is a float, and pickles as code.
        raise TypeError(
            f"{where} is a {type(value).__name__}; checkpoints hold tensors, numbers, strings, lists, dicts"
        )
