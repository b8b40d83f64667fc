"""What keys mean: the comments of `configs/`, which are the one place where it is said."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

GROUPS = ("agent", "encoder", "sim")  # whose files hold a part of the configuration and no more
_LINE = re.compile(r"^(?P<indent> *)(?P<key>[a-z_][a-z0-9_]*):(?P<rest>.*?)(?:\s#\s(?P<comment>.*))?$")


@cache
def meanings() -> dict[str, str]:
    """The comment of each key by its dotted name, such as "online.utd" or "agent.calql.tau"; "" without one.

    Keys of a group's choice carry the choice in their name.
    """
    folder = files("caliper.configs")
    found = _comments(folder.joinpath("train.yaml").read_text(encoding="utf-8"), "")
    for group in GROUPS:
        for path in folder.joinpath(group).iterdir():
            if path.name.endswith(".yaml"):
                prefix = f"{group}.{path.name.removesuffix('.yaml')}."
                found |= _comments(path.read_text(encoding="utf-8"), prefix)
    return found


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
