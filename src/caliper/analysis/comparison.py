"""`report.html` of a comparison: which variant does better, by how much, and how sure that is."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import quote

from caliper.analysis import comparison_plots as plots
from caliper.analysis.comparison_summary import number, percent, plain, summary
from caliper.analysis.page import Plot, bullets, clip, escape, facts, image, page, section
from caliper.analysis.plots import draw
from caliper.analysis.run_data import Run
from caliper.analysis.run_table import text_table, write_runs, write_table
from caliper.analysis.variant import Estimate, Variant, gather, without_intervals
from caliper.utils.files import replacing
from caliper.utils.provenance import in_words

LARGEST_VIDEO = 4 * 2**20  # bytes; a larger one is linked instead of embedded
SAME = ("task", "data", "reward", "evaluation")  # what has to be equal for a comparison to mean something


SUCCESS = Plot(
    "success",
    plots.success,
    "Success on fixed starts: interquartile mean over seeds (their number in brackets), with its 95% "
    "bootstrap interval. Offline over gradient updates, then over environment steps; the online curve "
    "begins at the last offline evaluation. A line goes as far as its slowest seed.",
)
Q_AND_RETURN = Plot(
    "q_and_return",
    plots.q_and_return,
    "The critic's value of the policy's actions, averaged over the steps of each evaluation's episodes, and "
    "the discounted return that followed them, on the scale of the training reward. Pale: each seed. The "
    "dashed line is the switch to the online phase. Each panel has a scale of its own.",
)
CALIBRATION = (
    Plot(
        "reliability_diagram",
        plots.reliability_diagram,
        "Pale dots are single steps of the last evaluation of a phase, all seeds together; the line joins "
        "the means of ten groups of steps, from the lowest Q to the highest. On the dashed line the critic "
        "is right; above it, it promises too much.",
    ),
    Plot(
        "time_to_go",
        plots.time_to_go,
        "The same steps, averaged by how many were left in their episode: solid, Q; dotted, the return that "
        "followed. Where they agree, the critic knows how far from the goal it is.",
    ),
    Plot(
        "bound_rate",
        plots.bound_rate,
        "How often the return of the recorded data, rather than Q, holds up the value of a policy action in "
        "the conservative term: mean over the updates of a phase; a dot for each seed. Variants that do not "
        "log it are left out.",
    ),
)
TIMES = Plot(
    "times",
    plots.times,
    "The whole run: dataset, both phases and their evaluations, mean over seeds. Runs side by side slow "
    "each other down by the clock, less so in CPU minutes.",
)


def write_sweep(folder: Path, runs: Sequence[tuple[str, Path]]) -> str:
    """Writes runs.json, runs.csv, variants.csv and curves.png into a folder, of runs finished or not.

    Args:
        folder: where the files go.
        runs: (variant, run folder); what is not there yet is left out. Numbers are of finished runs; the
            curves show the others as far as they have got.

    Returns:
        The table of variants as text.
    """
    variants = gather(runs, write_runs(folder, runs))
    rows = [variant.row() for variant in variants]
    write_table(folder / "variants.csv", rows)
    if (fig := draw(plots.success, variants)) is not None:
        with replacing(folder / "curves.png") as partial:
            fig.savefig(partial, dpi=160, format="png")
    return text_table(without_intervals(rows))


def write_comparison(folder: Path, runs: Sequence[tuple[str, Path]]) -> str:
    """Writes report.html, plots/*.png, variants.csv, runs.csv and runs.json, of runs finished or not.

    Args:
        folder: where the files go. The page needs no other file and no network; its links lead to the runs.
        runs: (variant, run folder); runs of one variant differ in their seed alone. Numbers are of finished
            runs; the curves show the others as far as they have got.

    Returns:
        The table of variants as text, and the path of the page.
    """
    found = write_runs(folder, runs)
    variants = gather(runs, found)
    rows = [variant.row() for variant in variants]
    write_table(folder / "variants.csv", rows)
    members = [run for variant in variants for run in variant.runs]

    def plot(one: Plot[Sequence[Variant]]) -> str:
        return image(one, variants, folder)

    sections = [
        section("Success across the switch", plot(SUCCESS)),
        section("The numbers", _table(variants)),
        section("Under other light, colours and cameras", _appearances(variants)),
        section("Does Q follow the return?", plot(Q_AND_RETURN)),
        section("Is the critic calibrated?", *map(plot, CALIBRATION)),
        section("Videos", _videos(folder, variants)),
        section("What a run takes", plot(TIMES)),
        section("What the variants use beyond the published algorithms", _deviations(variants)),
        section("The runs", _links(folder, runs, members)),
        section("Where these numbers come from", _provenance(members)),
    ]
    title = " · ".join(["Comparison", *_distinct(members, "task")])
    out = folder / "report.html"
    with replacing(out) as partial:
        partial.write_text(page(title, _header(variants, title), "".join(sections)), encoding="utf-8")
    return f"{text_table(without_intervals(rows))}\nreport: {out}"


def _header(variants: Sequence[Variant], title: str) -> str:
    runs = [run for variant in variants for run in variant.runs]
    seeds = sorted(
        {str(run.config["seed"]) for run in runs if "seed" in run.config}, key=lambda s: (len(s), s)
    )
    words = [
        f"{group} {', '.join(names)}" for group in ("task", "encoder") if (names := _distinct(runs, group))
    ]
    line = " · ".join([*words, f"seeds {', '.join(seeds)}", f"{len(variants)} variants"])
    planned, done = sum(s.planned for s in variants), sum(len(s.finished) for s in variants)
    waiting = f"{planned - done} of {planned} runs are not finished: numbers are of the finished ones alone."
    notes = [waiting] if done < planned else []
    varied = [
        key for key in SAME if len({json.dumps(run.config.get(key), sort_keys=True) for run in runs}) > 1
    ]
    if varied:
        notes.append(f"The runs do not all have the same configuration of: {', '.join(varied)}.")
    notes += [f"{run.folder.name}/{problem}" for run in runs for problem in run.problems]
    used = [len(variant.runs[0].deviations) for variant in variants if variant.runs]
    tuning = ""
    if used:
        spread = f"{used[0]}" if len(set(used)) == 1 else f"between {min(used)} and {max(used)}"
        tuning = (
            f"<p>Beyond the published algorithms, each variant uses {spread} tuned choices, listed below.</p>"
        )
    return (
        f"<h1>{escape(title)}</h1><p class=sub>{escape(line)}</p>"
        + (f"<div class=note>{bullets(notes)}</div>" if notes else "")
        + f"<p class=lead>{escape(summary(variants))}</p>{tuning}"
    )


def _table(variants: Sequence[Variant]) -> str:
    columns: dict[str, Callable[[Variant], str]] = {
        "Seeds": lambda s: f"{len(s.finished)} of {s.planned}",
        "Offline": lambda s: percent(s.estimates["offline"]),
        "Online": lambda s: percent(s.estimates["online"]),
        "Regret": lambda s: number(s.estimates["regret"]),
        "Dip": lambda s: number(s.estimates["dip"]),
        "Worst late": lambda s: percent(Estimate(s.worst_late)),
        "Area": lambda s: number(s.estimates["area"]),
        "Minutes": lambda s: f"{plain(s.minutes())} (CPU\u00a0{plain(s.minutes('cpu_minutes'))})",
    }
    caption = (
        "Interquartile mean over the finished seeds (of fewer than four, their mean) with its 95% bootstrap "
        "interval. Offline and online: success at the last evaluation of the phase; where a task has several "
        "parts, such as Franka Kitchen, the share of them that was done. Regret: what this lacks of all, "
        "averaged over the online evaluations. Dip: largest fall below the offline score in the first fifth "
        "of fine-tuning. Worst late: the worst of the last five evaluations of any seed. Area: mean height "
        "of the online curve. The same numbers are in variants.csv."
    )
    return _lines(variants, columns, caption)


def _appearances(variants: Sequence[Variant]) -> str:
    """Success at the last evaluation of each phase under each look; nothing where there was one alone."""

    def cell(key: tuple[str, str], v: Variant) -> str:
        return percent(v.appearances.get(key, Estimate()))

    keys = sorted(dict.fromkeys(key for v in variants for key in v.appearances), key=lambda key: key[0])
    columns = {f"{key[0].capitalize()}, {key[1].replace('_', ' ')}": partial(cell, key) for key in keys}
    caption = (
        "The same starts under each look, at the last evaluation of a phase: interquartile mean over the "
        "finished seeds (of fewer than four, their mean) with its 95% bootstrap interval."
    )
    return _lines(variants, columns, caption) if columns else ""


def _lines(variants: Sequence[Variant], columns: Mapping[str, Callable[[Variant], str]], caption: str) -> str:
    """A table with a line for each variant."""
    head = "".join(f"<th scope=col>{name}</th>" for name in columns)
    body = "".join(
        f"<tr><th scope=row>{escape(v.name)}</th>"
        + "".join(f"<td>{cell(v)}</td>" for cell in columns.values())
        + "</tr>"
        for v in variants
    )
    return (
        "<figure><div class=scroll tabindex=0>"
        f"<table class=numbers><tr><td></td>{head}</tr>{body}</table></div>"
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _videos(folder: Path, variants: Sequence[Variant]) -> str:
    items = []
    for variant in variants:
        filmed = next((run for run in variant.finished if run.videos), None)
        if filmed is None:
            continue
        path = next((p for p in filmed.videos if p.stem == "rollouts"), filmed.videos[0])
        name = f"{variant.name}, seed {filmed.config.get('seed', '?')}"
        if path.stat().st_size <= LARGEST_VIDEO:
            items.append(clip(path, name))
        else:
            items.append(f"<p>{_link(folder, path, name)}, too large to be shown here</p>")
    note = "<p>The final policy of each variant's first seed. Green frames succeeded, orange ones failed.</p>"
    return f"{note}<div class=videos>{''.join(items)}</div>" if items else ""


def _deviations(variants: Sequence[Variant]) -> str:
    """Each deviation once, with the variants that use it."""
    used = {s.name: s.runs[0].deviations for s in variants if s.runs}
    lines = []
    for deviation in dict.fromkeys(deviation for deviations in used.values() for deviation in deviations):
        users = [name for name, deviations in used.items() if deviation in deviations]
        lines.append(f"{deviation} ({'all variants' if len(users) == len(used) else ', '.join(users)})")
    none = [name for name, deviations in used.items() if not deviations]
    return bullets(lines) + (f"<p>Nothing: {escape(', '.join(none))}.</p>" if none else "")


def _links(folder: Path, runs: Iterable[tuple[str, Path]], found: Sequence[Run]) -> str:
    known = {run.folder: run for run in found}
    lines: dict[str, list[str]] = {}
    for variant, path in runs:
        run = known.get(path)
        name = f"seed {run.config.get('seed', '?')}" if run else path.name
        state = "" if run and run.complete else " (not finished)" if run else " (not begun)"
        report = path / "report.html"
        shown = _link(folder, report, name) if report.exists() else escape(name)
        lines.setdefault(variant, []).append(shown + state)
    rows = "".join(
        f"<tr><th scope=row>{escape(s)}</th><td>{', '.join(of)}</td></tr>" for s, of in lines.items()
    )
    return f"<div class=scroll tabindex=0><table class=facts>{rows}</table></div>"


def _link(folder: Path, path: Path, name: str) -> str:
    return f'<a href="{quote(os.path.relpath(path, folder))}">{escape(name)}</a>'


def _provenance(runs: Sequence[Run]) -> str:
    def told(key: str) -> str:
        return "; ".join(dict.fromkeys(str(run.git[key]) for run in runs if run.git.get(key)))

    versions = dict.fromkeys(
        ", ".join(f"{k} {v}" for k, v in run.git["versions"].items())
        for run in runs
        if isinstance(run.git.get("versions"), dict)
    )
    commits = dict.fromkeys(words for run in runs if (words := in_words(run.git.get("caliper"))))
    return facts(
        {"Commit": "; ".join(commits), "Hardware": told("hardware"), "Versions": "; ".join(versions)}
    )


def _distinct(runs: Sequence[Run], group: str) -> list[str]:
    """The names of a configuration group among the runs."""
    names = [run.name_of(group) for run in runs]
    return list(dict.fromkeys(name for name in names if name is not None))
