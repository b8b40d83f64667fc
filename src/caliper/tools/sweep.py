"""`caliper sweep` and `compare`: runs over seeds and variants, a few at a time, resumable, summed up."""

from __future__ import annotations

import itertools
import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from caliper.analysis.comparison import write_sweep
from caliper.analysis.run_table import variant_of
from caliper.config.changes import Change, changes
from caliper.config.compose import PATHS, compose, load, quoted
from caliper.config.estimate import refuse_too_many_runs
from caliper.config.messages import require_pair
from caliper.config.schema import RunConfig
from caliper.config.validate import check
from caliper.errors import CaliperError
from caliper.launching.job import Job, Launcher, busy, finished
from caliper.launching.local import Local
from caliper.launching.table import LiveTable
from caliper.machine import cores
from caliper.training.data import find_data
from caliper.training.devices import choose_devices
from caliper.training.interrupt import InterruptedRunError

MOST_RUNS = 10_000  # of one sweep

# Sums up runs, (variant, run folder) each, in a folder; returns what is printed at the end.
Summary = Callable[[Path, Sequence[tuple[str, Path]]], str]


def sweep(
    words: Sequence[str],
    folder: Path,
    at_once: int,
    verb: str = "sweep",
    write: Summary = write_sweep,
    launcher: Launcher | None = None,
) -> Path:
    """Runs every combination of the swept values, each in a process of its own, and sums them up.

    What is finished is skipped and what was interrupted is resumed, so that the same command goes on after
    a kill, with the same launcher or another. The summary is written anew whenever a run ends.

    Args:
        words: as for `caliper train`; a value may be a list of choices in Hydra's grammar, such as seed=0,1.
        folder: holds one run folder and one log for each combination, and the summary.
        at_once: runs side by side; each gets its share of the cores unless the words name `threads`.
        verb: the command, as its messages and its own keys name it.
        write: makes the summary, of runs finished or not.
        launcher: where the runs go; None is this machine.

    Returns:
        The folder.

    Raises:
        CaliperError: the words don't fit, or a run failed; the others are finished first.
        InterruptedRunError: Ctrl-C; the runs have saved a checkpoint each.
    """
    if at_once < 1:
        raise CaliperError(f"{verb}.jobs={at_once} makes no sense; it must be at least 1")
    launcher = launcher or Local()
    if launcher.cpus is not None and not any(word.startswith("threads=") for word in words):
        words = [*words, f"threads={launcher.cpus}"]
    jobs = expand(words, folder, at_once, verb)
    configs = [compose(list(job.words)) for job in jobs]
    for config in configs:
        check(config)
    for job, config in zip(jobs, configs, strict=True):
        _refuse_other_words(job, config, verb)
    if launcher.cpus is None:  # a cluster's machines have a memory of their own
        left = [c for job, c in zip(jobs, configs, strict=True) if not finished(job.folder)]
        refuse_too_many_runs([choose_devices(c).applied(c) for c in left], at_once, f"{verb}.jobs")
    folder.mkdir(parents=True, exist_ok=True)
    recorded = [part for config in configs for part in (config, config.prior) if part is not None]
    for part in {tuple(part.dataset_paths()): part for part in recorded}.values():
        if launcher.cpus is not None:
            part = replace(part, device="auto")  # the runs' GPU need not be here
        find_data(choose_devices(part).applied(part))  # here and not in two runs at the same time
    print(f"{verb} folder: {folder}: {len(jobs)} runs, {min(at_once, len(jobs))} at a time", flush=True)

    def sum_up() -> str:
        return write(folder, [(job.variant, job.folder) for job in jobs])

    failed = _run(dict(zip(jobs, configs, strict=True)), at_once, launcher, sum_up)
    print(sum_up())
    print(f"{verb} folder: {folder}", flush=True)
    if failed:
        raise CaliperError(
            f"{len(failed)} of {len(jobs)} runs failed; read {failed[0].log}, fix it, and give the same "
            "command again"
        )
    return folder


def expand(words: Sequence[str], folder: Path, at_once: int, verb: str = "sweep") -> list[Job]:
    """Every combination of the swept values; the last word varies fastest.

    Raises:
        CaliperError: a word that Hydra cannot read, or `run_dir`, which the sweep itself sets, or too many
            combinations, or one of them twice.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser, parsed = OverridesParser.create(), []
    for word in words:
        require_pair(word)
        try:
            parsed.append(parser.parse_override(_quoted_paths(word)))
        except HydraException as error:
            raise CaliperError(f"'{word}' cannot be read; write a {verb} as seed=0,1,2") from error
    if any(override.key_or_group == "run_dir" for override in parsed):
        raise CaliperError(f"a {verb} names its run folders itself; leave run_dir out, or set {verb}.dir")
    common = [str(o.input_line) for o in parsed if not o.is_sweep_override()]
    if not any(o.key_or_group == "threads" for o in parsed):
        common.append(f"threads={max(1, cores() // at_once)}")
    swept = [o for o in parsed if o.is_sweep_override()]
    choices = [
        [f"{o.get_key_element()}={v}" for v in itertools.islice(o.sweep_string_iterator(), MOST_RUNS + 1)]
        for o in swept
    ]
    if math.prod(map(len, choices)) > MOST_RUNS:
        raise CaliperError(f"this {verb} would be of more than {MOST_RUNS} runs; give fewer values")
    jobs: dict[str, Job] = {}
    for combination in itertools.product(*choices):
        name = ",".join(combination).replace("/", "_").replace("'", "") or "run"
        if name in jobs:
            raise CaliperError(f"this {verb} would make {name} twice; give each value once")
        run = folder / name
        jobs[name] = Job(variant_of(name), run, (*common, *combination, f"run_dir={run}"))
    return list(jobs.values())


def _quoted_paths(word: str) -> str:
    """A pair of paths, one or several with commas between them, such as Hydra can read: see `quoted`."""
    key, _, value = word.partition("=")
    if key not in PATHS or re.fullmatch(r"[\w./,-]*", value, re.ASCII) or value[0] in "'\"[":
        return word
    paths = [value] if Path(value).exists() else value.split(",")
    return f"{key}={','.join(quoted(f'{key}={path}').partition('=')[2] for path in paths)}"


def _refuse_other_words(job: Job, config: RunConfig, verb: str) -> None:
    """A run that is there already must be the one that the words ask for: it would not be made again."""
    path = job.folder / "config.yaml"
    if not path.exists():
        return
    begun = load(path)
    other = [
        c
        for c in changes(begun, config)
        if c.key not in ("run_dir", "threads") and not c.key.endswith(("path", "content"))
    ]
    for part, mine in ((config, begun), (config.prior, begun.prior)):
        ours = None if part is None else str(Path(part.dataset_path()).resolve())
        theirs = None if mine is None else str(Path(mine.dataset_path()).resolve())
        other += [Change("data.path", theirs, ours)] * (ours != theirs)
    if other:
        raise CaliperError(
            f"{job.folder} was begun with {other[0].key}={other[0].before}, not {other[0].after}; give the "
            f"words as then, or another folder with {verb}.dir"
        )


def _run(
    jobs: dict[Job, RunConfig], at_once: int, launcher: Launcher, sum_up: Callable[[], str]
) -> list[Job]:
    """Sees all jobs through; returns those that failed."""
    waiting = [job for job in jobs if not finished(job.folder)]
    running: dict[Job, str] = {}
    failed: list[Job] = []
    ended: list[Job] = []
    table = LiveTable(jobs)
    try:
        while waiting or running:
            # Runs that an earlier sweep has left behind, itself killed, are waited for.
            free = [job for job in waiting if not busy(job.folder)] if len(running) < at_once else []
            for job in free[: at_once - len(running)]:
                waiting.remove(job)
                if not finished(job.folder):
                    launcher.start(job)
                    running[job] = ""
            if ended:  # while the next runs are under way
                sum_up()
            before, running = running, launcher.running()
            ended = [job for job in before if job not in running]
            failed += [job for job in ended if not finished(job.folder)]
            table.show(running, len(waiting), len(failed))
            time.sleep(launcher.pace)
    except KeyboardInterrupt:
        launcher.stop()
        raise InterruptedRunError("stopped and saved; give the same command to go on") from None
    return failed
