"""What `caliper inspect FILE` says of a recording that nobody has imported yet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from caliper.data.formats.recordings import RecordedDemo, Recording
from caliper.errors import CaliperError, printable
from caliper.importing.controller import read_settings, unwarned
from caliper.importing.demo import Importer, Options
from caliper.importing.dialect import ASKED, control_freq, read_as, usual_way
from caliper.importing.images import likenesses
from caliper.importing.model.compiled import physics_model


def describe_recording(recording: Recording, images: bool = False, assets: Path | None = None) -> str:
    """Describes a recording in lines of text.

    Args:
        recording: the file.
        images: compare its images with ours.
        assets: folder of meshes that are not robosuite's.
    """
    demos = [d for d in recording.demos if d.fault is None]
    bad = [d for d in recording.demos if d.fault is not None]
    rows = [
        ("family", recording.family),
        ("task", recording.env_name or "not named"),
        ("robosuite", recording.version or "version not named"),
        ("controller", _controller(recording, demos, assets)),
        ("robots", _words(recording.settings.get("robots", "not named"))),
        ("frequency", _frequencies(demos)),
        ("size", f"{recording.path.stat().st_size / 1e6:.2f} MB"),
        ("demos", f"{len(recording.demos)}, {recording.demos[0].name} to {recording.demos[-1].name}"),
        *((f"  {d.name}", f"unreadable: {d.fault}") for d in bad),
        ("length", _spread([len(d.actions) for d in demos])),
        ("states", _widths([d.states.shape[1] for d in demos])),
        ("actions", f"{_widths([d.actions.shape[1] for d in demos])}, {_reach(demos)}"),
        ("rewards", _rewards(demos)),
        ("images", ", ".join(f"{n} {h}x{w}" for n, (h, w, _) in recording.images.items()) or "none"),
        *(_compared(recording, assets) if images else ()),
        ("filters", ", ".join(f"{key} {len(names)}" for key, names in recording.masks.items()) or "none"),
        ("missing", ", ".join(recording.missing) or "nothing"),
        ("import", _verdict(recording, demos, assets)),
    ]
    return "\n".join(
        [
            printable(str(recording.path)),
            *(f"  {printable(name):<16}{printable(value)}" for name, value in rows),
        ]
    )


def _controller(recording: Recording, demos: Sequence[RecordedDemo], assets: Path | None) -> str:
    """Its kind, and the versions whose controller the actions show to have been at work."""
    try:
        settings = read_settings(recording.settings.get("controller_configs"))
    except CaliperError as error:
        return str(error)
    kind = "OSC_POSITION" if settings.position_only else "OSC_POSE"
    pairs = []
    reason = "no demo to measure"
    for demo in demos[:ASKED]:
        if demo.model is None:
            reason = "no model to measure it in"
            continue
        try:
            pairs.append((physics_model(demo.model, assets), demo))
        except CaliperError as error:
            reason = str(error)
    pairs = [(m, d) for m, d in pairs if d.states.shape[1] == 1 + m.nq + m.nv]
    if not pairs:
        return f"{kind}; {reason}"
    freq = control_freq(pairs[0][1].states) or 20.0
    try:
        with unwarned():
            way = usual_way(pairs, settings, freq, recording.version)
            off = read_as(pairs[0][0], settings, pairs[0][1], freq, way).error
    except (CaliperError, ValueError, IndexError, ArithmeticError, mujoco.FatalError) as failure:
        return f"{kind}; not measured: {failure}"
    posture = "" if way.posture == "rest" else ", pulled to its first posture"
    return f"{kind} of robosuite {way.dialect.name}, measured (one step {off:.0e} rad){posture}"


def _frequencies(demos: Sequence[RecordedDemo]) -> str:
    found = sorted({freq for d in demos if (freq := control_freq(d.states)) is not None})
    return f"{', '.join(f'{freq:g}' for freq in found)} Hz" if found else "unknown"


def _reach(demos: Sequence[RecordedDemo]) -> str:
    if not demos:
        return "none"
    largest = max(float(np.abs(d.actions).max()) for d in demos)
    beyond = sum(int((np.abs(d.actions) > 1).any(1).sum()) for d in demos) / sum(
        len(d.actions) for d in demos
    )
    return f"up to {largest:.3g}" + (f", {beyond:.1%} of the steps beyond 1" if beyond else "")


def _rewards(demos: Sequence[RecordedDemo]) -> str:
    rewards = [d.rewards for d in demos if d.rewards is not None]
    if not rewards:
        return "none; success is judged on the states"
    return f"{sum(bool((r > 0).any()) for r in rewards)} of {len(rewards)} demos are rewarded"


def _compared(recording: Recording, assets: Path | None) -> list[tuple[str, str]]:
    try:
        found = likenesses(recording, assets)
    except CaliperError as error:
        return [("", f"not compared: {error}")]
    return [("", f"{name}: {likeness}") for name, likeness in found.items()]


def _verdict(recording: Recording, demos: Sequence[RecordedDemo], assets: Path | None) -> str:
    """Whether it can be imported, tried on its first readable demo."""
    try:
        importer = Importer(recording, Options(assets=assets))
        if not demos:
            return "no: none of its demos can be read"
        return f"yes, into {importer.task}; {importer.convert(demos[0]).report}"
    except CaliperError as error:
        return f"no: {str(error).removeprefix(str(recording.path)).lstrip(': ')}"


def _spread(values: Sequence[int]) -> str:
    if not values:
        return "none"
    return f"{min(values)} .. {max(values)} steps, median {np.median(values):g}, {sum(values)} in all"


def _widths(values: Sequence[int]) -> str:
    return f"{', '.join(str(v) for v in sorted(set(values)))} numbers" if values else "none"


def _words(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
