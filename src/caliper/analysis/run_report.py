"""`report.html`: one self-contained page on a run, made of whatever the run has left so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from caliper.analysis.calibration import calibration, reliability, values
from caliper.analysis.diagnostics import failure_diagnostics
from caliper.analysis.page import Plot, bullets, clip, count, escape, facts, image, interval, page, section
from caliper.analysis.plots import learning_curve, losses
from caliper.analysis.run_data import Evaluation, Run, read_run
from caliper.analysis.stats import sign_test
from caliper.utils.files import replacing
from caliper.utils.provenance import in_words

CURVE = Plot(
    "learning_curve",
    learning_curve,
    "Success on fixed starts, over offline gradient updates and then over environment steps; where a task "
    "has several parts, the share of them that was done. Bands are 95% Wilson intervals of success. The dip "
    "is the largest fall below the last offline evaluation within the first fifth of the online phase "
    "(shaded). Regret is what the curve lacks of all, averaged over the online evaluations.",
)
CRITIC = (
    Plot(
        "calibration",
        calibration,
        "Each dot is one step of an evaluation episode: the critic's value of the policy's action against "
        "the discounted return that followed, on the scale of the training reward. On the dashed line the "
        "critic is right; above it, it promises too much.",
    ),
    Plot(
        "reliability",
        reliability,
        "The same steps, averaged by how many were left in their episode. Where the lines agree, the critic "
        "knows how far from the goal it is.",
    ),
    Plot(
        "values",
        values,
        "Bound rate: how often the return of the recorded data, rather than Q, holds up the value of a "
        "policy action in the conservative term. The dashed line is the switch to the online phase.",
    ),
)
DIAGNOSTICS = Plot(
    "diagnostics",
    failure_diagnostics,
    "Four ways to fail. Off the data: values of uniform actions, which nobody tried, should stay below the "
    "policy's. Rough Q: how much more the critic promises for the best of 64 samples of the policy than for "
    "the action taken. Drift: how far the critic's encoder has turned (1 - linear CKA on 128 recorded "
    "observations) since the evaluation before and since the first. Width: the policy's standard deviation, "
    "and the success of its samples while collecting beside that of its greedy action.",
)
LOSSES = Plot(
    "losses", losses, "Pale: as logged. Solid: running mean. The dashed line is the switch to online."
)


FEWEST = 4  # evaluations of a phase, before a start that fails in all of them says anything


def write_report(run_folder: Path | str) -> Path:
    """Writes report.html and plots/*.png from what a run folder holds; missing pieces are left out.

    Args:
        run_folder: with any of config.yaml, git.json, metrics.csv, evaluations/, videos/. A video whose
            name contains "fail" is shown first.

    Returns:
        The path of the page. It needs no other file and no network.

    Raises:
        CaliperError: the folder holds no run, or cannot be written to.
    """
    run = read_run(run_folder)
    sections = [
        section("What happened", _history(run)),
        section("Learning curve", image(CURVE, run, run.folder, _summary(run))),
        section("Before and after fine-tuning", _comparison(run)),
        section("Videos", _videos(run)),
        section("Is the critic calibrated?", *(image(plot, run, run.folder) for plot in CRITIC)),
        section("If it fails, why?", image(DIAGNOSTICS, run, run.folder)),
        section("Losses", image(LOSSES, run, run.folder)),
        section("What this run uses beyond the published algorithm", _deviations(run)),
        section("Where these numbers come from", _provenance(run)),
    ]
    title = " · ".join(_names(run)) or run.folder.resolve().name
    out = run.folder / "report.html"
    with replacing(out) as partial:
        partial.write_text(page(title, _header(run), "".join(sections)), encoding="utf-8")
    return out


def _header(run: Run) -> str:
    task, *rest = _names(run) or [run.folder.resolve().name]
    started = str(run.git.get("started", ""))[:16].replace("T", " ")
    line = " · ".join([*rest, *([f"started {started} UTC"] if started else [])])
    cards = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(note)}</small></dd></div>"
        for name, value, note in _cards(run)
    )
    problems = "".join(f"<li>{escape(problem)}</li>" for problem in run.problems)
    said = "Some files could not be read, not wholly, or have no checksum:"
    note = f'<div class="note">{said}<ul>{problems}</ul></div>'
    return (
        f"<h1>{escape(task)}</h1><p class=sub>{escape(line)}</p>{note if problems else ''}"
        f"<p class=lead>{escape(_summary(run))}</p><dl class=cards>{cards}</dl>"
    )


def _summary(run: Run) -> str:
    """The run in one or two sentences, no rosier than its numbers."""
    return f"Training stopped: {run.stopped}. Until then: {_success(run)}" if run.stopped else _success(run)


def _success(run: Run) -> str:
    offline, online = run.last("offline"), run.last("online")
    if offline is None and online is None:
        return "This run has not been evaluated yet."
    if offline is None or online is None:
        only = offline or online
        assert only is not None
        missing = "" if only is online else " The online phase has no evaluation yet."
        does = "succeeds in" if only.parts == 1 else "does"
        return f"After the {only.phase} phase so far the policy {does} {_rate(only)}.{missing}"
    change = online.height - offline.height
    verb = "rose" if change > 0 else "fell" if change < 0 else "stayed level"
    text = (
        f"{run.measure.capitalize()} {verb}: {_rate(offline)} after the offline phase, {_rate(online)} after "
    )
    text += f"{count(online.env_steps)} environment steps of fine-tuning."
    before, after = (e.solved for e in (offline, online))
    shared = before.keys() & after.keys()
    if shared:
        gained = sum(after[s] and not before[s] for s in shared)
        lost = sum(before[s] and not after[s] for s in shared)
        text += (
            f" Of the {len(shared)} starts that both were tested on, {gained} were won over and {lost} were "
        )
        p = sign_test(gained, lost)
        text += f"lost (sign test, p {f'= {p:.2g}' if p >= 0.001 else '< 0.001'})."
    return text


def _cards(run: Run) -> Iterable[tuple[str, str, str]]:
    for phase in ("offline", "online"):
        last = run.last(phase)
        if last is not None:
            if last.parts > 1:
                yield f"{phase.capitalize()} tasks done", f"{last.score:.1f}", f"of {last.parts}"
            yield f"{phase.capitalize()} success", f"{last.success_once:.0%}", interval(*last.interval)
    if not math.isnan(run.regret):
        yield "Regret", f"{run.regret:.2f}", "0 is best"
    if not math.isnan(run.dip):
        yield "Dip", f"{run.dip:.2f}", "0 is best"
    minutes = _minutes(run)
    if minutes:
        yield "Time", f"{sum(minutes.values()):.0f} min", "both phases" if len(minutes) > 1 else "so far"


def _comparison(run: Run) -> str:
    phases = [e for e in (run.last("offline"), run.last("online")) if e is not None]
    if not phases:
        return ""
    minutes = _minutes(run)

    rows: dict[str, Callable[[Evaluation], str]] = {
        **({"Tasks done": lambda e: f"{e.score:.2f} of {e.parts}"} if run.measure == "tasks done" else {}),
        **_appearances(phases),
        "Evaluation episodes": lambda e: count(e.episodes),
        "Environment steps": lambda e: count(e.env_steps),
        "Gradient updates": lambda e: count(e.updates),
        "Minutes in the phase": lambda e: f"{minutes[e.phase]:.1f}" if e.phase in minutes else "",
    }
    head = "".join(f"<th scope=col>{escape(e.phase.capitalize())}</th>" for e in phases)
    body = "".join(
        f"<tr><th scope=row>{escape(name)}</th>{''.join(f'<td>{escape(cell(e))}</td>' for e in phases)}</tr>"
        for name, cell in rows.items()
    )
    caption = "The last evaluation of each phase, with 95% Wilson intervals."
    head = f"<caption>{caption}</caption><tr><td></td>{head}</tr>"
    return f"<div class=scroll tabindex=0><table>{head}{body}</table></div>{_never_solved(run)}"


def _never_solved(run: Run) -> str:
    """The starts at which all evaluations of a phase failed: chance forgets some start, a cause does not."""
    phase = next((name for name in ("online", "offline") if len(run.phase(name)) >= FEWEST), None)
    if phase is None:
        return ""
    outcomes = [e.solved for e in run.phase(phase)]
    shared = sorted(set.intersection(*(set(solved) for solved in outcomes)))
    never = [seed for seed in shared if not any(solved[seed] for solved in outcomes)]
    if not never or len(never) == len(shared):
        return ""
    one = len(never) == 1
    text = (
        f"Of the {len(shared)} starts of all {len(outcomes)} {phase} evaluations, {len(never)} "
        f"{'was' if one else 'were'} never solved: seed{'' if one else 's'} {', '.join(map(str, never[:20]))}"
        f"{' and more' if len(never) > 20 else ''}. See what {'it has' if one else 'they have in common'}: "
    )
    command = f"caliper render {run.folder} evaluation.seed={never[0]} video.episodes=1"
    return f"<p>{escape(text)}<code>{escape(command)}</code></p>"


def _appearances(phases: list[Evaluation]) -> dict[str, Callable[[Evaluation], str]]:
    """Rows of success: one, or one for each appearance under which the policy was evaluated."""

    def cell(name: str, e: Evaluation) -> str:
        found = e.looks.get(name)
        return "" if found is None else f"{found.success_once:.0%} {interval(*found.interval)}"

    names = dict.fromkeys(name for e in phases for name in e.looks)
    if len(names) == 1:
        return {"Success": partial(cell, next(iter(names)))}
    return {f"Success, {name.replace('_', ' ')}": partial(cell, name) for name in names}


def _videos(run: Run) -> str:
    failed_first = sorted(run.videos, key=lambda path: ("fail" not in path.stem.lower(), path.stem))
    items = [clip(path, path.stem.replace("_", " ").capitalize()) for path in failed_first]
    note = "<p>Episodes framed in green succeeded, those in orange failed. Failures come first.</p>"
    return f"{note}<div class=videos>{''.join(items)}</div>" if items else ""


def _history(run: Run) -> str:
    """Other values at a resume, warnings and stops."""
    said = {"changed": "went on with", "warned": "warning:", "stopped": "stopped:"}
    return bullets(f"{e.at[:16].replace('T', ' ')} UTC, {said[e.kind]} {e.text}" for e in run.history)


def _deviations(run: Run) -> str:
    if not run.config:
        return ""
    return bullets(run.deviations) or "<p>Nothing: the algorithm as published.</p>"


def _provenance(run: Run) -> str:
    git = run.git
    versions = git.get("versions")
    told = {
        "Caliper's commit": in_words(git.get("caliper")),
        "Your folder's commit": in_words(git.get("directory")),
        "Hardware": str(git.get("hardware") or ""),
        "Devices": "; then ".join(map(_devices, run.devices)),
        "Versions": ", ".join(f"{k} {v}" for k, v in versions.items()) if isinstance(versions, dict) else "",
        "Started": str(git.get("started") or ""),
        "Dataset": _dataset(run.config.get("data")),
        "Run folder": run.folder.resolve().name,
    }
    config = escape(OmegaConf.to_yaml(OmegaConf.create(dict(run.config)))) if run.config else ""
    details = (
        f"<details><summary>Configuration</summary><pre tabindex=0>{config}</pre></details>" if config else ""
    )
    return facts(told) + details


def _devices(start: Mapping[str, str]) -> str:
    """One entry of a run's devices.json in words."""
    return (
        f"learner on {start['learner']} ({start['learner_why']}), sim={start['engine']} on "
        f"{start['engine_device']} ({start['engine_why']})"
    )


def _dataset(data: Any) -> str:
    """Where the data was, and the checksum by which it is known."""
    if not isinstance(data, dict) or not data.get("content"):
        return ""
    return f"{data.get('path') or 'collected'}, SHA-256 of its content {data['content']}"


def _names(run: Run) -> list[str]:
    """Task, agent, encoder and seed, as far as the config names them."""
    seed = f"seed {run.config['seed']}" if "seed" in run.config else None
    return [word for word in (*map(run.name_of, ("task", "agent", "encoder")), seed) if word]


def _minutes(run: Run) -> dict[str, float]:
    """Wall-clock minutes of each phase."""
    ends: dict[str, float] = {}
    if "wall_s" in run.metrics:
        for phase in ("offline", "online"):
            walls = run.metrics["wall_s"][run.metrics["phase"] == phase]
            if len(walls):
                ends[phase] = float(walls.max()) / 60 - sum(ends.values())
    return ends


def _rate(e: Evaluation) -> str:
    all_done = f"{e.success_once:.0%} of {e.episodes} episodes {interval(*e.interval)}"
    return all_done if e.parts == 1 else f"{e.score:.2f} of {e.parts} tasks (all of them in {all_done})"
