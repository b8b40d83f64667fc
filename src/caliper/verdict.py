"""A comparison in words and in cells, no surer than its seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

from caliper.page import interval
from caliper.settings import Estimate, Setting

ABSENT = "n/a"


def verdict(settings: Sequence[Setting]) -> str:
    """Who ends highest and how sure that is, who dips and who regrets least, in words."""
    ranked = sorted(_measured(settings, "online"), key=lambda s: -s.estimates["online"].value)
    if not ranked:
        return "No run is finished yet, so there are no numbers; the curves show how far they have got."
    top = ranked[0].estimates["online"]
    first = [s for s in ranked if s.estimates["online"].value == top.value]
    ends = "ends" if len(first) == 1 else "end"
    text = [f"{_names(first)} {ends} {'highest, ' if len(ranked) > 1 else ''}at {percent(top)} success."]
    seeds = min(len(s.finished) for s in ranked)
    others = ranked[len(first) :]
    near = [s for s in others if not s.estimates["online"].high < top.low]
    if others and seeds == 1:
        text.append("With a single seed of some setting, no difference is more than a hint.")
    elif near:
        text.append(f"The interval of {_names(near)} overlaps: these seeds do not tell them apart.")
    elif others:
        text.append("Its interval lies above those of all others." if len(first) == 1 else "")
    if 1 < seeds < 5:
        text.append(f"With {seeds} seeds an interval is little more than their range.")
    dips = _measured(settings, "dip")
    falling = sorted(
        (s for s in dips if s.estimates["dip"].value > 0), key=lambda s: -s.estimates["dip"].value
    )
    if falling:
        deepest = falling[0].estimates["dip"]
        text.append(
            f"After the switch {falling[0].name} falls furthest below its offline score, by "
            f"{_points(deepest)}."
        )
    elif dips:
        text.append("None falls below its offline score early in fine-tuning.")
    calm = sorted(_measured(settings, "regret"), key=lambda s: s.estimates["regret"].value)
    if len(calm) > 1:
        text.append(f"{calm[0].name} has the least regret, {calm[0].estimates['regret'].value:.2f}.")
    ours = [s for s in ranked if _agent(s) == "calql"]
    if ours and not set(first) & set(ours):
        place = 1 + sum(s.estimates["online"].value > ours[0].estimates["online"].value for s in ranked)
        text.append(f"Cal-QL is not the best here: {ours[0].name} comes {place}. of {len(ranked)}.")
    return " ".join(filter(None, text))


def _measured(settings: Sequence[Setting], column: str) -> list[Setting]:
    return [s for s in settings if not math.isnan(s.estimates[column].value)]


def _agent(setting: Setting) -> str:
    agent = setting.runs[0].config.get("agent")
    return str(agent.get("name") if isinstance(agent, dict) else agent)


def _names(settings: Sequence[Setting]) -> str:
    *some, last = [s.name for s in settings]
    return f"{', '.join(some)} and {last}" if some else last


def percent(e: Estimate) -> str:
    """A share with its interval."""
    if math.isnan(e.value):
        return ABSENT
    return f"{e.value:.0%}" + ("" if math.isnan(e.low) else f" {interval(e.low, e.high)}")


def number(e: Estimate) -> str:
    """A number with its interval."""
    return plain(e.value, 2) + ("" if math.isnan(e.low) else f" [{e.low:.2f},\u00a0{e.high:.2f}]")


def _points(e: Estimate) -> str:
    spread = "" if math.isnan(e.low) else f" [{100 * e.low:.0f},\u00a0{100 * e.high:.0f}]"
    return f"{100 * e.value:.0f}{spread} percentage points"


def plain(value: float, digits: int = 1) -> str:
    """A number without."""
    return ABSENT if math.isnan(value) else f"{value:.{digits}f}"
