"""Text files of a run folder, which may be a stranger's, or damaged: read without harm, and checked.

What Caliper writes carries a SHA-256 of itself, so that a changed byte shows. A file without one is read: it
is older, or changed by hand on purpose.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from caliper.errors import no_file
from caliper.utils.files import replacing

SEAL = "sha256"
MOST_YAML, MOST_JSON, MOST_TABLE = 256 << 10, 64 << 20, 1 << 30  # bytes
DEEPEST = 30  # lists and mappings inside each other
_SEALED = re.compile(r"# sha256 ([0-9a-f]{64}) of what follows\n")
CHANGED = "has been changed since Caliper wrote it (its checksum differs)"


class ForeignFileError(ValueError):
    """Why a file can't be read, in words that follow its name."""


def read_text(path: Path, most: int) -> str:
    """A text file that is a regular file, not a pipe or device, and no larger than `most` bytes.

    Raises:
        ForeignFileError: it is another thing, too large, absent, unreadable or not UTF-8.
    """
    try:
        if fault := no_file(path):
            raise ForeignFileError(fault)
        if (size := path.stat().st_size) > most:
            raise ForeignFileError(f"is too large ({size} bytes, at most {most})")
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise ForeignFileError(f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ForeignFileError(f"is not text: byte {error.start} is no UTF-8") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file's mapping, of plain values: nothing in it is a reference to something else.

    An alias (`*name`) can unfold to gigabytes, and OmegaConf's interpolations (`${oc.env:NAME}`) would carry
    secrets of the reader into files that are passed on. A run's own configuration needs neither.

    Raises:
        ForeignFileError: it has one of them, is damaged, changed since it was written, or not a mapping.
    """
    import yaml  # here, for an exported policy is read without either
    from omegaconf import OmegaConf

    text = read_text(path, MOST_YAML)
    if (seal := _SEALED.match(text)) and _digest(text[seal.end() :]) != seal[1]:
        raise ForeignFileError(f"{CHANGED}; if that was meant, remove its first line")
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise ForeignFileError(f"has an alias (*{event.anchor}), which a run's own never has")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise ForeignFileError(f"is nested deeper than {DEEPEST} levels")
        content = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    except ForeignFileError:
        raise
    except Exception as error:  # yaml and OmegaConf pass on whatever the text leads them to
        raise ForeignFileError(
            f"is not plain YAML ({(str(error) or repr(error)).splitlines()[0]})"
        ) from error
    if not isinstance(content, dict) or not content:
        raise ForeignFileError("is not a mapping" if content else "is empty")
    for where, value in _strings(content, ""):
        if "${" in value:
            raise ForeignFileError(
                f"has an interpolation in {where.lstrip('.')}, which a run's own never has"
            )
    _refuse_odd(content)
    return {str(key): value for key, value in content.items()}


def is_sealed(path: Path) -> bool:
    """Whether a YAML or JSON file carries a checksum: one without is older, changed by hand, or has lost it.

    Raises:
        ForeignFileError: it cannot be read.
    """
    if path.suffix == ".json":
        return SEAL in _json_object(path)
    return _SEALED.match(read_text(path, MOST_YAML)) is not None


def tell_unsealed(path: Path) -> None:
    """Says so if nobody vouches for a YAML file."""
    if not is_sealed(path):
        print(f"{path} carries no checksum: changes in it do not show", file=sys.stderr, flush=True)


def sealed_yaml(text: str) -> str:
    """YAML with its checksum as a comment in front."""
    return f"# sha256 {_digest(text)} of what follows\n{text}"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's object, without its checksum.

    Raises:
        ForeignFileError: it is damaged, changed since it was written, or not an object.
    """
    content = _json_object(path)
    seal = content.pop(SEAL, None)
    if seal is not None and seal != _digest(_canonical(content)):
        raise ForeignFileError(CHANGED)
    return content


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes an object with its checksum, whole or not at all.

    Raises:
        CaliperError: the disk is full or not writable.
    """
    plain = json.loads(json.dumps(dict(content)))  # as it will be read
    text = json.dumps(plain | {SEAL: _digest(_canonical(plain))}, indent=1) + "\n"
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_odd(content: Any) -> None:
    """Refuses plain values that break whoever walks them, or takes them for a name or a message.

    Raises:
        ForeignFileError: they are nested deep, or a text has a zero byte or half a character, which JSON and
            YAML can both spell.
    """
    level, depth = [content], 0
    while level := [part for part in level if isinstance(part, dict | list)]:
        depth += 1
        if depth > DEEPEST:
            raise ForeignFileError(f"is nested deeper than {DEEPEST} levels")
        if odd := [key for part in level if isinstance(part, dict) for key in part if type(key) is not str]:
            raise ForeignFileError(f"has the key {odd[0]!r:.40}, which is no text")
        level = [x for part in level for x in (part.values() if isinstance(part, dict) else part)]
        if any(isinstance(x, bytes) for x in level):
            raise ForeignFileError("has bytes (!!binary), where text or a number belongs")
    for where, text in _strings(content, ""):
        if any(c == "\0" or "\ud800" <= c <= "\udfff" for c in text):
            raise ForeignFileError(f"has a character in {where.lstrip('.') or 'a key'} that no text has")


def _json_object(path: Path) -> dict[str, Any]:
    """A JSON file's object, its checksum included but not looked at; raises as `read_json`."""
    try:
        content = json.loads(read_text(path, MOST_JSON))
        _refuse_odd(content)
    except (ValueError, RecursionError) as error:
        if isinstance(error, ForeignFileError):
            raise
        raise ForeignFileError(f"is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise ForeignFileError("is not a mapping")
    return content


def _canonical(content: Any) -> str:
    return json.dumps(content, sort_keys=True)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _strings(value: Any, where: str) -> Iterator[tuple[str, str]]:
    """Every string in plain values, keys too, and where it is."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield from _strings(str(key), where)
            yield from _strings(entry, f"{where}.{key}")
    elif isinstance(value, list):
        for i, entry in enumerate(value):
            yield from _strings(entry, f"{where}[{i}]")
