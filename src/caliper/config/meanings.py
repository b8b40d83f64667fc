"""What `configs/` says of keys: their comments, the one place where meanings are said, and groups' values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

GROUPS = ("agent", "encoder")  # whose files hold a part of the configuration and no more
_LINE = re.compile(r"^(?P<indent> *)(?P<key>[a-z_][a-z0-9_]*):(?P<rest>.*?)(?:\s#\s(?P<comment>.*))?$")


@cache
def meanings() -> dict[str, str]:
    """The comment of each key by its dotted name, such as "online.utd" or "agent.calql.tau"; "" without one.

    Keys of a group's choice carry the choice in their name.
    """
    folder = files("caliper.configs")
    found = _comments(folder.joinpath("train.yaml").read_text(encoding="utf-8"), "")
    for group in GROUPS:
        texts = {
            path.name.removesuffix(".yaml"): path.read_text(encoding="utf-8")
            for path in folder.joinpath(group).iterdir()
            if path.name.endswith(".yaml")
        }
        for choice in texts:
            found |= _with_bases(texts, choice, f"{group}.{choice}.")
    return found


def choices(group: str) -> dict[str, dict[str, Any]]:
    """The values of each choice of a group, with those of the files that it builds on."""
    folder = files("caliper.configs").joinpath(group)
    found = {
        path.name.removesuffix(".yaml"): path for path in folder.iterdir() if path.name.endswith(".yaml")
    }
    read = {name: yaml.safe_load(path.read_text(encoding="utf-8")) or {} for name, path in found.items()}

    def values(choice: str) -> dict[str, Any]:
        own = {key: value for key, value in read[choice].items() if key != "defaults"}
        merged: dict[str, Any] = {}
        for base in read[choice].get("defaults", ["_self_"]):
            merged |= own if base == "_self_" else values(base)
        return merged

    return {choice: values(choice) for choice in sorted(read) if not choice.startswith("_")}


def _with_bases(texts: Mapping[str, str], choice: str, prefix: str) -> dict[str, str]:
    """The comments of a group's choice: its own, before those of the files that it builds on."""
    found: dict[str, str] = {}
    for base in (yaml.safe_load(texts[choice]) or {}).get("defaults", ()):
        found |= _comments(texts[choice], prefix) if base == "_self_" else _with_bases(texts, base, prefix)
    return found or _comments(texts[choice], prefix)


def _comments(text: str, prefix: str) -> dict[str, str]:
    found: dict[str, str] = {}
    above: list[tuple[int, str]] = []  # indent and key of the mappings around the line
    for line in text.splitlines():
        if not (match := _LINE.match(line)):
            continue
        indent = len(match["indent"])
        above = [(i, key) for i, key in above if i < indent]
        found[prefix + ".".join([*(key for _, key in above), match["key"]])] = match["comment"] or ""
        above.append((indent, match["key"]))
    return {name: comment for name, comment in found.items() if not name.startswith(f"{prefix}defaults")}


def meaning(key: str) -> str:
    """What a key means, without the limits that stand behind the semicolon."""
    return re.sub(r"; (at least|above|at most|below|\S+ \|).*$", "", meanings().get(key, ""))
