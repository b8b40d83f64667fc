"""A run's folder: who may write there, what it refuses, and the configuration that stands in it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from caliper.config.changes import changes
from caliper.config.compose import load, to_yaml
from caliper.config.schema import RunConfig
from caliper.errors import CaliperError, no_file
from caliper.training.checkpoint import saved_ranks
from caliper.utils.files import locked, refuse_links, replacing
from caliper.utils.foreign import sealed_yaml
from caliper.utils.history import remember
from caliper.utils.ranks import Place, Ranks, resume_command

# What a run puts into its folder.
OWN = {
    *("config.yaml", "git.json", "devices.json", "pretrained.json"),
    *("metrics.csv", "history.jsonl", "evaluation.json"),
    *("report.html", "checkpoints", "evaluations", "plots", "videos", "wandb", "tensorboard"),
}
LOGS = {".log", ".out", ".err", ".txt"}  # what a shell or a cluster may keep there of what the run prints


def owned(folder: Path, ranks: Ranks) -> AbstractContextManager[None]:
    """Keeps others out of the folder; the first rank does for all."""
    return locked(folder) if ranks.first else nullcontext()


def refuse_used(folder: Path) -> None:
    """Keeps a new run out of the folder of another.

    One that has begun has a checkpoint; a folder without one holds nothing to lose.

    Raises:
        CaliperError: there is one; says how to go on with it.
    """
    if (folder / "checkpoints" / "latest").exists():
        raise CaliperError(
            f"{folder} already holds a run; go on with: caliper resume {folder}, or choose another run_dir"
        )


def refuse_crowded(folder: Path) -> None:
    """Keeps a run out of a home, a project, or wherever else other things are.

    Raises:
        CaliperError: the folder is a file, leads elsewhere, or holds other things; names three.
    """
    if not folder.is_dir():
        if folder.exists() or folder.is_symlink():
            raise CaliperError(
                f"run_dir={folder} {no_file(folder) or 'is a file'}; choose a folder of its own"
            )
        return
    refuse_links(folder)
    others = sorted(
        p.name
        for p in folder.iterdir()
        if p.name.removesuffix(".partial") not in OWN | {".lock"} and p.suffix not in LOGS
    )
    if others:
        raise CaliperError(
            f"run_dir={folder} holds other things ({', '.join(others[:3])}{', ...' * (len(others) > 3)}), "
            "among which a run would be lost; choose a folder of its own"
        )


def refuse_other_ranks(folder: Path, ranks: Ranks) -> None:
    """Holds a run to the number of ranks that it was begun with.

    Raises:
        CaliperError: there are more or fewer; says how to go on.
    """
    if (then := saved_ranks(folder)) != ranks.count:
        before = "by one process" if then == 1 else f"on {then} ranks"
        how = resume_command(folder, Place(count=then, local_count=then))
        raise CaliperError(
            f"{folder} was made {before}, and this is {ranks.count}: its envs, online buffer and recorded "
            f"episodes are divided otherwise, and other batches would be drawn; go on with: {how}"
        )


def refuse_too_late(config: RunConfig, folder: Path, made: dict[str, Any]) -> None:
    """Refuses to make a phase shorter than it has been, and to change the length of one that is over.

    Raises:
        CaliperError: it is one of both; says how long the phase has been.
    """
    saved = load(folder / "config.yaml")
    if made["online"] and config.offline.updates != saved.offline.updates:
        raise CaliperError(
            f"offline.updates={config.offline.updates} comes too late: the offline phase of {folder} ended "
            f"after {saved.offline.updates} updates; leave it out, or start a new run"
        )
    steps, least = config.online.env_steps, made["env_steps"]
    if steps < least and steps != saved.online.env_steps:
        raise CaliperError(
            f"online.env_steps={steps} comes too late: {folder} has made {least} steps; give at least so many"
        )
    updates, least = config.offline.updates, made["updates"]
    if not made["online"] and updates < least:
        raise CaliperError(
            f"offline.updates={updates} comes too late: {folder} has made {least}; give at least so many"
        )


def keep_changes(config: RunConfig, folder: Path) -> None:
    """Says what is different from now on, and keeps it as history: config.yaml is what holds now."""
    found = changes(load(folder / "config.yaml"), config)
    if not found:
        return
    text = "; ".join(map(str, found))
    print(f"changed: {text}", flush=True)
    remember(folder, "changed", text, changes=[asdict(c) for c in found])
    write_config(config, folder)


def write_config(config: RunConfig, folder: Path) -> None:
    """Writes config.yaml, with its checksum."""
    with replacing(folder / "config.yaml") as partial:
        partial.write_text(sealed_yaml(to_yaml(config)), encoding="utf-8")
