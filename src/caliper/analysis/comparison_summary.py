"""A comparison in words and in cells, no surer than its seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

from caliper.analysis.page import interval
from caliper.analysis.variant import Estimate, Variant

ABSENT = "n/a"
FEW = 5  # seeds; below, an interval says little


def summary(variants: Sequence[Variant]) -> str:
    """Who ends highest and how sure that is, who dips and who regrets least, in words."""
    ranked = _ranked(variants, "online", highest=True)
    if not ranked:
        return "No run is finished yet, so there are no numbers; the curves show how far they have got."
    top = ranked[0].estimates["online"]
    first, others = _leaders(ranked, "online")
    text = [
        f"{_names(first)} {'ends' if len(first) == 1 else 'end'} {'highest, ' if others else ''}"
        f"at {percent(top)} {'success' if ranked[0].measure == 'success' else 'of the tasks'}."
    ]
    seeds = min(len(s.finished) for s in ranked)
    near = [s for s in others if not s.estimates["online"].high < top.low]
    if len(ranked) > 1 and seeds == 1:
        text.append("With a single seed of some variant, no difference is more than a hint.")
    elif near:
        text.append(f"These seeds do not tell it apart from {_names(near)}: the intervals overlap.")
    elif others:
        text.append("All others' intervals lie below.")
    if 1 < seeds < FEW:
        text.append(f"With {seeds} seeds an interval is little more than their range.")
    dips = _ranked(variants, "dip", highest=True)
    if dips and (deepest := dips[0].estimates["dip"]).value > 0:
        fell = _leaders(dips, "dip")[0]
        falls = "falls" if len(fell) == 1 else "fall"
        text.append(f"After the switch {_names(fell)} {falls} furthest below the offline score,")
        text.append(f"by {_points(deepest)}.")
    elif dips:
        text.append("None falls below its offline score early in fine-tuning.")
    calm = _ranked(variants, "regret", highest=False)
    if len(calm) > 1:
        least = _leaders(calm, "regret")[0]
        has = "has" if len(least) == 1 else "have"
        text.append(f"{_names(least)} {has} the least regret, {calm[0].estimates['regret'].value:.2f}.")
    ours = [s for s in ranked if _agent(s) == "calql"]
    if ours and not set(first) & set(ours):
        place = 1 + sum(s.estimates["online"].value > ours[0].estimates["online"].value for s in ranked)
        text.append(f"Cal-QL is not the best here: {ours[0].name} comes {place}. of {len(ranked)}.")
    return " ".join(text)


def _ranked(variants: Sequence[Variant], column: str, highest: bool) -> list[Variant]:
    """The variants that have the number, the best first."""
    known = [s for s in variants if not math.isnan(s.estimates[column].value)]
    return sorted(known, key=lambda s: s.estimates[column].value, reverse=highest)


def _leaders(ranked: Sequence[Variant], column: str) -> tuple[list[Variant], list[Variant]]:
    """Those that share the first place, and the others."""
    best = ranked[0].estimates[column].value
    first = [s for s in ranked if math.isclose(s.estimates[column].value, best)]
    return first, [s for s in ranked if s not in first]


def _agent(variant: Variant) -> str:
    agent = variant.runs[0].config.get("agent")
    return str(agent.get("name") if isinstance(agent, dict) else agent)


def _names(variants: Sequence[Variant]) -> str:
    *some, last = [s.name for s in variants]
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
