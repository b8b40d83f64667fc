"""Checkpoints that survive a kill at any moment and that never run code when they are loaded.

run/checkpoints/000007/{weights.safetensors, state.pt, manifest.json}
                                                          written under a temporary name, synced, renamed
run/checkpoints/latest                                    the name of the newest complete one

Of a run on several ranks each has a state of its own, the others in `state.1.pt` and so on.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
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
from caliper.utils.ranks import ALONE, Ranks

KEEP = 2
WEIGHTS, STATE = "weights.safetensors", "state.pt"
LEFT = re.compile(r"\.[0-9]{6,12}\.(partial|old)")  # what a killed process leaves; all else is not ours


def save_checkpoint(
    folder: Path | str,
    weights: Mapping[str, Tensor],
    state: Mapping[str, Any],
    metrics: Mapping[str, Any] | None = None,
    ranks: Ranks = ALONE,
) -> Path:
    """Saves a checkpoint of a run, and forgets all but the last two; all ranks of the run call it.

    Args:
        folder: the run folder.
        weights: a `state_dict`.
        state: the rest (optimisers, generators, counters, buffer): tensors, numbers, strings, lists, dicts.
        metrics: how far metrics.csv is, for the list of files (see `caliper.utils.manifest`).
        ranks: of the run; `state` is this rank's own, the weights are those of all.

    Returns:
        The new checkpoint's folder.

    Raises:
        CaliperError: it cannot be written. Earlier checkpoints stay whole.
        TypeError: `state` holds something that could not be loaded without running code.
    """
    _check_plain(state, "state")
    root = Path(folder) / "checkpoints"

    def own() -> list[Path]:
        if not ranks.first:
            with _writing(root):
                mine = _beside(root, ranks.place.rank)
                mine.unlink(missing_ok=True)  # it may be a link, see `replacing`
                with open(mine, "wb") as file:
                    torch.save(state, file)
        return []

    def whole() -> list[Path]:
        return [_save(root, weights, state, metrics, ranks.count)] if ranks.first else []

    ranks.gathered(own)
    path = ranks.gathered(whole)[0]
    if ranks.first:
        _prune(root)
    return path


def _save(
    root: Path,
    weights: Mapping[str, Tensor],
    state: Mapping[str, Any],
    metrics: Mapping[str, Any] | None,
    ranks: int,
) -> Path:
    """See `save_checkpoint`; takes in what other ranks have written beside it."""
    partial: Path | None = None
    try:
        with _writing(root):
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
            for rank in range(1, ranks):
                os.rename(_beside(root, rank), partial / state_name(rank))
            write_manifest(partial, metrics)
            for path in (*partial.iterdir(), partial):
                sync(path)
            os.rename(partial, root / name)
            sync(root)
            with replacing(root / "latest") as pointer:
                pointer.write_text(name + "\n")
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
    return root / name


@contextmanager
def _writing(root: Path) -> Iterator[None]:
    try:
        root.mkdir(parents=True, exist_ok=True)
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        raise CaliperError(
            f"Cannot write a checkpoint to {root}: {reason}; free some space or permit writing, then resume."
        ) from error


def state_name(rank: int) -> str:
    """The file of a rank's state in a checkpoint."""
    return STATE if rank == 0 else f"state.{rank}.pt"


def _beside(root: Path, rank: int) -> Path:
    return root / f".{state_name(rank)}.partial"


def saved_ranks(folder: Path) -> int:
    """How many ranks a run's newest checkpoint is of; 1 where there is none, which loading it will tell."""
    try:
        path = latest(folder / "checkpoints")
    except ForeignFileError:
        return 1
    return 1 + sum(1 for _ in path.glob("state.*.pt"))


def load_checkpoint(folder: Path | str, rank: int = 0) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Loads a run's newest checkpoint onto the CPU.

    Args:
        folder: the run folder.
        rank: whose state it shall be.

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
        check_manifest(path, (WEIGHTS, state_name(rank)))
        weights = load_file(path / WEIGHTS)
        state = torch.load(path / state_name(rank), map_location="cpu", weights_only=True)
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
