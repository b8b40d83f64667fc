"""Writes the page "Configuration": every key of a run, read off the YAML files and the schema."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import Field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from caliper import configs
from caliper.agents import AGENTS
from caliper.config.compose import usual_values
from caliper.config.meanings import choices, meaning
from caliper.config.schema import RunConfig
from caliper.limits import Limits

FOLDER = Path(configs.__file__).parent

HEAD = """# Configuration

Every key of a run, with its default, its meaning and unit, and what it may be. Keys go on the command line
as `key=value`; dots lead into a section:

```sh
caliper train task=lift seed=3 online.env_steps=10000 agent.discount=0.98
```

A few words choose a whole group of values at once. `caliper tasks` lists the choices.

| word | what it chooses |
|---|---|
| `task=` | the task: scene, controller, frequency, horizon, cameras, default encoder |
| `agent=` | the algorithm, its keys, and what it asks of the training loop |
| `encoder=` | the network that turns images into features |
| `sim=` | the physics engine: `batch`, `warp` or `auto` |
| `obs=` | pixels, or the state instead |
| `preset=` | a tested combination of all of these |

The command line wins over every file. `caliper train --cfg task=lift` prints the whole configuration
without running it. The files are in `configs/`; this page is made from them and from
`src/caliper/config/schema.py` whenever the documentation is built.

The column *later* says where a key may get another value after training began: **resume** when a run goes
on (`caliper resume`), **evaluate** when its policy is measured or filmed (`caliper evaluate`,
`caliper render`). All other keys belong to what was trained.

"""


AGENTS_KEYS = """The keys of each algorithm. Where a preset sets a key that the agent lacks, the key is left
out. On the command line it is refused."""


def write_page(path: Path) -> None:
    """Writes the page if it has changed, so that Sphinx reads it again only then."""
    lines = [*_run(), *_choices("agent", AGENTS_KEYS)]
    lines += _choices("encoder", "The keys of each network.")
    text = HEAD + "\n".join(lines) + "\n"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def _run() -> Iterator[str]:
    yield "## The run"
    yield ""
    values, hints = usual_values(), get_type_hints(RunConfig)
    yield from _section(RunConfig, "", values)
    for entry in fields(RunConfig):
        if is_dataclass(kind := hints[entry.name]) and entry.name in values:
            yield from (f"## {entry.name}", "", kind.__doc__ or "", "")
            yield from _section(kind, entry.name, values[entry.name])


def _section(kind: type, path: str, values: dict[str, Any]) -> Iterator[str]:
    """A table of a section's own keys, then one of each section within."""
    hints = get_type_hints(kind)
    inner = [e.name for e in fields(kind) if is_dataclass(hints[e.name])]
    own = [e for e in fields(kind) if e.name not in inner and "limits" in e.metadata and e.name in values]
    rows = [_row(entry, f"{path}.{entry.name}".lstrip("."), values[entry.name]) for entry in own]
    yield from _table(("key", "default", "meaning", "may be", "later"), rows)
    for name in inner if path else ():
        yield from (f"### {path}.{name}", "", hints[name].__doc__ or "", "")
        yield from _section(hints[name], f"{path}.{name}", values[name])


def _row(entry: Field[Any], name: str, default: Any) -> tuple[str, ...]:
    told = meaning(name)
    told = "" if told == _limits(entry) else told  # where nothing but the limits needs saying
    return f"`{name}`", _plain(default), told, _limits(entry), _later(entry)


def _choices(group: str, title: str) -> Iterator[str]:
    """One table for all choices of a group: a key's default, and in which choices it is another or absent."""
    content = choices(group)
    keys: dict[str, dict[str, Any]] = {}
    for choice, values in content.items():
        for key, value in values.items():
            if key != "name":
                keys.setdefault(key, {})[choice] = value
    yield from (f"## {group}", "", title, "")
    entries, rows = _entries(group), []
    for key, found in keys.items():
        told = next(filter(None, (meaning(f"{group}.{choice}.{key}") for choice in found)), "")
        limits, later = (_limits(entries[key]), _later(entries[key])) if key in entries else ("", "")
        rows.append((f"`{group}.{key}`", _defaults(found), told, limits, later, _of(found, content)))
    yield from _table(("key", "default", "meaning", "may be", "later", "of"), rows)


def _entries(group: str) -> dict[str, Field[Any]]:
    """The fields of a group's choices, which carry their limits; an encoder's keys have none."""
    kinds = [config for _, config in AGENTS.values()] if group == "agent" else []
    return {entry.name: entry for kind in kinds for entry in fields(kind)}


def _of(found: Iterable[str], every: Iterable[str]) -> str:
    """Which choices have a key, said the shorter way."""
    with_it = [f"`{choice}`" for choice in found]
    without = [f"`{choice}`" for choice in every if choice not in found]
    if len(without) > 2:
        return ", ".join(with_it)
    return "all" + (f" but {', '.join(without)}" if without else "")


def _defaults(found: dict[str, Any]) -> str:
    """The most common value, and who has another."""
    texts = {choice: _plain(value) for choice, value in found.items()}
    usual = max(dict.fromkeys(texts.values()), key=[*texts.values()].count)
    others = [f"{choice}: {text}" for choice, text in texts.items() if text != usual]
    return usual + (f" ({'; '.join(others)})" if others else "")


def _limits(entry: Field[Any]) -> str:
    limits = entry.metadata.get("limits", Limits())
    return ", ".join(f"`{choice}`" for choice in limits.choices) or str(limits)


def _later(entry: Field[Any]) -> str:
    return ", ".join(word for word in ("resume", "evaluate") if entry.metadata.get(word))


def _plain(value: Any) -> str:
    """A value as one would write it."""
    if value is None or isinstance(value, bool):
        return {None: "`null`", True: "`true`", False: "`false`"}[value]
    if isinstance(value, list | dict):
        return f"`{yaml.safe_dump(value, default_flow_style=True, width=1000).strip()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _table(head: Iterable[str], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    rows = list(rows)
    if not rows:
        return
    head = [*head]
    kept = [i for i, _ in enumerate(head) if any(row[i] for row in rows)]
    yield "| " + " | ".join(head[i] for i in kept) + " |"
    yield "|" + "---|" * len(kept)
    for row in rows:
        yield "| " + " | ".join(row[i].replace("|", "\\|") for i in kept) + " |"
    yield ""
