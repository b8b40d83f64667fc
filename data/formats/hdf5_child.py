"""The process that opens HDF5 files of strangers: run by `caliper.data.formats.hdf5`, never imported.

HDF5's library was not made for hostile bytes: some make it crash, others keep it busy for ever. So a process
that imports nothing of ours opens the file under limits of time and memory, looks at the structure before it
reads anything, and answers requests, a line of JSON each, with a line of JSON and the bytes of an array.

    {"do": "names", "at": "data"}              {"names": {"demo_0": "group", "x": "a soft link"}}
    {"do": "attributes", "at": "data/demo_0"}  {"attributes": {"seed": ["int", 7], "x": ["other", "empty"]}}
    {"do": "array", "at": "data/demo_0/states"} {"dtype": "<f8", "shape": [40, 32]}, then the bytes
    {"do": "shape", "at": "data/demo_0/states"} {"dtype": "<f8", "shape": [40, 32]}, and no bytes
    {"do": "texts", "at": "mask/train"}         {"texts": ["demo_0", "demo_2"]}
    anything that will not do                   {"error": "..."}
"""

from __future__ import annotations

import codecs
import json
import math
import os
import resource
import signal
import sys
from contextlib import suppress
from typing import Any, BinaryIO

import h5py
import numpy as np

MEMORY = 4 << 30  # bytes beyond what the process holds when it starts, and twice the file
CPU_SECONDS, BYTES_PER_SECOND = 3, 20 << 20  # so long, and longer the larger the file
REQUEST_SECONDS = 0.01  # and longer the more is asked: a file can have thousands of small episodes
ONE_ARRAY = 4 << 30
MOST_NAMES, MOST_ATTRIBUTES, MOST_AXES = 1_000_000, 10_000, 8
LONGEST_TEXT = 8 << 20  # characters; a simulator's model as XML can have 0.3 million
# What a filter can make of a byte, generously; deflate's own limit is 1032.
INFLATION = 1100
FILTERS = {1: "deflate", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}
DTYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")


class RefusedError(Exception):
    """A request that this file cannot fulfil; the message goes to the asker."""


def main() -> None:
    """Serves one file, whose name comes as the only argument, until the asker hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C: the asker decides
    serve(sys.argv[1], sys.stdin.buffer, sys.stdout.buffer)


def serve(path: str, asked: BinaryIO, told: BinaryIO) -> None:
    """Answers requests about a file. Says "ready" first: what comes before is the start of Python."""
    size = os.stat(path).st_size
    allowed = confine(size)
    for codec in ("ascii", "latin-1", "utf-8"):  # which Python loads from a file when it first needs them
        codecs.lookup(codec)
    _tell(told, {"ready": size})
    try:
        file = h5py.File(path, "r")
    except Exception as error:  # h5py passes on whatever the bytes lead it to
        _tell(told, {"error": _first_line(error)})
        return
    with suppress(ValueError, OSError):  # no link, and no storage, leads to a further file from here on
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
    _tell(told, {"open": True})
    reader = Reader(file, size)
    for line in asked:
        allowed = allow(allowed + REQUEST_SECONDS)
        try:
            answer, content = reader.answer(json.loads(line))
        except RefusedError as error:
            answer, content = {"error": str(error)}, None
        except Exception as error:  # as above
            answer, content = {"error": f"it is damaged ({_first_line(error)})"}, None
        _tell(told, answer, content)


def confine(size: int) -> float:
    """Limits this process, as far as the platform has such limits; returns its seconds of CPU."""
    held = 0
    with suppress(OSError), open("/proc/self/statm") as file:
        held = int(file.read().split()[0]) * resource.getpagesize()
    used = resource.getrusage(resource.RUSAGE_SELF)
    for limit, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_AS, held + MEMORY + 2 * size),
    ):
        with suppress(ValueError, OSError):
            resource.setrlimit(limit, (most, most))
    return allow(used.ru_utime + used.ru_stime + CPU_SECONDS + size / BYTES_PER_SECOND)


def allow(seconds: float) -> float:
    """Ends this process when it has used so many seconds of CPU; rounded up, as Linux counts."""
    with suppress(ValueError, OSError):
        _, most = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(seconds), most))
    return seconds


class Reader:
    """Looks up what is asked for, and reads nothing whose structure it has not checked.

    Args:
        file: open for reading.
        size: of the file, bytes.
    """

    def __init__(self, file: h5py.File, size: int) -> None:
        self.file, self.size = file, size
        self.left = (1 << 30) + 32 * size  # bytes that may still be handed out

    def answer(self, request: dict[str, str]) -> tuple[dict[str, Any], np.ndarray[Any, Any] | None]:
        """The answer, and the array that goes with it."""
        node, where = self.find(request["at"]), request["at"] or "/"
        if request["do"] == "attributes":
            return {"attributes": _attributes(node, where)}, None
        if request["do"] == "names":
            if not isinstance(node, h5py.Group):
                raise RefusedError(f"{where} is no group")
            return {"names": _names(node, where)}, None
        if not isinstance(node, h5py.Dataset):
            raise RefusedError(f"{where} is no array")
        if request["do"] == "texts":
            return {"texts": self.texts(node, where)}, None
        if request["do"] == "shape":
            if node.shape is None or len(node.shape) > MOST_AXES:
                raise RefusedError(f"{where} has no shape")
            return {"dtype": node.dtype.newbyteorder("<").str, "shape": list(node.shape)}, None
        array = self.read(node, where)
        return {"dtype": array.dtype.str, "shape": list(array.shape)}, array

    def find(self, where: str) -> Any:
        """The object of a path whose links are all hard ones: the others lead to other places, or files."""
        node: Any = self.file
        parts = [part for part in where.split("/") if part]
        for depth, part in enumerate(parts):
            link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
            if link is None:
                raise RefusedError(f"there is no {where}")
            if kind := _kind(link):
                raise RefusedError(
                    f"{'/'.join(parts[: depth + 1])} is {kind}, and only what is in the file is read"
                )
            node = node[part]
        return node

    def read(self, node: h5py.Dataset, where: str) -> np.ndarray[Any, Any]:
        """An array whose type, layout, filters and size are those of plain numbers in this file."""
        dtype, shape = node.dtype, node.shape
        if dtype.kind + str(dtype.itemsize) not in DTYPES or dtype.shape:
            raise RefusedError(f"{where} holds {_in_words(dtype)} instead of numbers")
        if shape is None or len(shape) > MOST_AXES:
            raise RefusedError(f"{where} has {'no value' if shape is None else f'{len(shape)} axes'}")
        nbytes = math.prod(shape) * dtype.itemsize
        _check_storage(node, where, nbytes, self.size)
        if nbytes > min(ONE_ARRAY, self.left):
            raise RefusedError(f"{where} would unfold to {nbytes / 2**30:.1f} GiB, more than this file may")
        self.left -= nbytes
        array = np.empty(shape, dtype)
        if nbytes:
            node.read_direct(array)
        return np.asarray(array, dtype.newbyteorder("<"), order="C")

    def texts(self, node: h5py.Dataset, where: str) -> list[str]:
        """The texts of an array of any shape, bytes and characters alike."""
        kind = h5py.check_string_dtype(node.dtype)
        if kind is None or node.shape is None:
            raise RefusedError(f"{where} holds {_in_words(node.dtype)} instead of text")
        nbytes = math.prod(node.shape) * node.dtype.itemsize
        most = LONGEST_TEXT if kind.length is None else LONGEST_TEXT // max(kind.length, 1)
        if math.prod(node.shape) > min(MOST_NAMES, most):
            raise RefusedError(f"{where} has {math.prod(node.shape)} texts, more than any list of names")
        _check_storage(node, where, nbytes * (2 if kind.length is None else 1), self.size)
        found = np.ravel(node[()]).tolist()
        return [_decoded(text) for text in found]


def _check_storage(node: h5py.Dataset, where: str, nbytes: int, size: int) -> None:
    """Refuses an array whose bytes are elsewhere, are not there, or are packed in an unusual way."""
    plan = node.id.get_create_plist()
    if plan.get_external_count():
        raise RefusedError(f"{where} has its bytes in another file, and only what is in the file is read")
    layout = plan.get_layout()
    if layout not in (h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED):
        raise RefusedError(f"{where} is a virtual dataset, and only what is in the file is read")
    filters = [plan.get_filter(i)[0] for i in range(plan.get_nfilters())]
    if odd := [code for code in filters if code not in FILTERS]:
        raise RefusedError(
            f"{where} is packed with the filter {odd[0]}; known are {', '.join(FILTERS.values())}"
        )
    stored = node.id.get_storage_size()
    if stored > size:
        raise RefusedError(f"{where} claims {stored} bytes, more than the whole file")
    if layout != h5py.h5d.CHUNKED:
        whole = stored == nbytes
    else:
        chunks = math.prod(-(-n // c) for n, c in zip(node.shape, plan.get_chunk(), strict=True))
        whole = stored * (INFLATION if filters else 1) >= nbytes and node.id.get_num_chunks() == chunks
    if not whole:
        rows = node.shape[0] if node.shape else 1
        raise RefusedError(f"{where} claims {rows} rows, but the file does not hold their {nbytes} bytes")


def _kind(link: Any) -> str:
    """What a link is, unless it is a hard one."""
    kinds = {h5py.HardLink: "", h5py.SoftLink: "a soft link", h5py.ExternalLink: "a link to another file"}
    return kinds[type(link)]


def _names(group: h5py.Group, where: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in group:
        if len(found) == MOST_NAMES:
            raise RefusedError(f"{where} has more than {MOST_NAMES} entries")
        kind = _kind(group.get(name, getlink=True))
        if not kind:
            made = group.get(name, getclass=True)
            kind = {h5py.Group: "group", h5py.Dataset: "array"}.get(made, "something else")
        found[name] = kind
    return found


def _attributes(node: Any, where: str) -> dict[str, tuple[str, Any]]:
    """Kind and value of each attribute: text, int, float, bool, or other text (bytes, or an array of one).

    What is none of these is "other", with what it is.
    """
    if len(node.attrs) > MOST_ATTRIBUTES:
        raise RefusedError(f"{where} has more than {MOST_ATTRIBUTES} attributes")
    found: dict[str, tuple[str, Any]] = {}
    for name in node.attrs:
        entry = node.attrs.get_id(name)
        if entry.shape is None:
            found[name] = ("other", "empty")
        elif entry.shape == (1,) and entry.dtype.kind in "SO":
            found[name] = _other_text(node.attrs[name])
        elif entry.shape != ():
            found[name] = ("other", "an array")
        elif entry.get_storage_size() > LONGEST_TEXT:
            found[name] = ("other", "longer than any text")
        else:
            found[name] = _value(node.attrs[name])
    return found


def _value(value: Any) -> tuple[str, Any]:
    if isinstance(value, str):
        return ("text", value) if len(value) <= LONGEST_TEXT else ("other", "longer than any text")
    if isinstance(value, np.bool_):
        return "bool", bool(value)
    if isinstance(value, np.integer):
        return "int", int(value)
    if isinstance(value, np.floating):
        return "float", float(value)
    if isinstance(value, bytes):
        return _other_text(value)
    return "other", f"a {type(value).__name__}"


def _other_text(value: Any) -> tuple[str, Any]:
    """Text as some writers keep it: as bytes, or in an array that holds one."""
    text = value.item() if isinstance(value, np.ndarray) else value
    if not isinstance(text, str | bytes):
        return "other", "an array"
    return ("other text", _decoded(text)) if len(text) <= LONGEST_TEXT else ("other", "longer than any text")


def _decoded(text: str | bytes) -> str:
    return text if isinstance(text, str) else text.decode("utf-8", "replace")


def _in_words(dtype: np.dtype[Any]) -> str:
    """A type in words."""
    if dtype.shape:
        return "arrays"
    words = {"O": "text or references", "S": "text", "V": "records", "c": "complex numbers"}
    return words.get(dtype.kind, f"values of the type {dtype}")


def _first_line(error: Exception) -> str:
    return ((str(error) or type(error).__name__).splitlines() or [""])[0][:200]


def _tell(told: BinaryIO, answer: dict[str, Any], content: np.ndarray[Any, Any] | None = None) -> None:
    told.write(json.dumps(answer).encode("ascii") + b"\n")
    if content is not None and content.nbytes:
        told.write(content.reshape(-1).view(np.uint8).data)
    told.flush()


if __name__ == "__main__":
    main()
