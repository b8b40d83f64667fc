"""Where the meshes and textures of a recording are on this machine: its file names those of another."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from caliper.envs.scene.scenes import load_robosuite

# What moved within robosuite's assets between its versions, as the path was and as it is.
MOVED = (
    (r"^robots/\w+/meshes/pedestal", "bases/meshes/rethink_mount/pedestal"),
    (r"^mounts/", "bases/"),
)
LONGEST = 4096  # characters of a path, as Linux has it


def robosuite_assets() -> Path:
    """The folder of the installed robosuite's meshes and textures."""
    return Path(load_robosuite().__file__).parent / "assets"


def tail(path: str) -> tuple[str, ...]:
    """A recorded path's parts after its last `models/assets/`, or all of them; `..` resolved.

    >>> tail("/home/x/models/assets/arenas/../textures/a.png")
    ('textures', 'a.png')
    """
    parts: list[str] = []
    for part in re.split(r".*models/assets/", path.replace("\\", "/"))[-1].split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return tuple(parts)


@cache
def _by_name(root: Path) -> Mapping[str, Sequence[tuple[str, ...]]]:
    """Every file below a folder, as parts, by its name."""
    found = defaultdict(list)
    for path in root.rglob("*"):
        if path.is_file():
            found[path.name].append(path.relative_to(root).parts)
    return found


def locate(path: str, folder: Path | None = None) -> Path | None:
    """The file that a recorded path means here, or None.

    Tried in this order: the same path below robosuite's assets; the path it moved to; in `folder`, the file
    that shares most of the path's end, at least its own folder's name unless it is the only one of its name;
    the one file of robosuite's with the same name and folder. A path is never opened as it stands.

    Args:
        path: as the recording's model has it.
        folder: of assets that are not robosuite's, such as LIBERO's.
    """
    root, parts = robosuite_assets(), tail(path) if len(path) <= LONGEST else ()
    if not parts:
        return None
    here = "/".join(parts)
    for name in (here, *(re.sub(old, new, here) for old, new in MOVED)):
        if (root / name).is_file():
            return root / name
    if folder is not None and (found := _nearest(_by_name(folder.resolve())[parts[-1]], parts)):
        return folder.resolve().joinpath(*found)
    same = [p for p in _by_name(root)[parts[-1]] if p[-2:] == parts[-2:]]
    return root.joinpath(*same[0]) if len(same) == 1 else None


def _nearest(candidates: Sequence[tuple[str, ...]], parts: tuple[str, ...]) -> tuple[str, ...] | None:
    """The candidate that ends most like the path; None where two do equally well."""

    def shared(candidate: tuple[str, ...]) -> int:
        pairs = zip(reversed(candidate), reversed(parts), strict=False)
        return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(candidate), len(parts)))

    ranked = sorted(candidates, key=shared, reverse=True)
    if len(ranked) > 1 and shared(ranked[0]) == shared(ranked[1]):
        return None
    return ranked[0] if ranked and (len(ranked) == 1 or shared(ranked[0]) > 1) else None
