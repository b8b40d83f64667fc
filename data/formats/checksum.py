"""SHA-256 of recorded arrays and what is said of them: tells a changed file, and one dataset from another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def digest(facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]] | None = None) -> str:
    """SHA-256, as 64 hexadecimal digits, of facts and arrays.

    Args:
        facts: text, numbers and lists by name; their order does not matter.
        arrays: by name. Type and shape count, the order of bytes in memory does not.
    """
    total = hashlib.sha256(json.dumps(dict(facts), sort_keys=True).encode("ascii"))
    for name, array in sorted((arrays or {}).items()):
        plain = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        total.update(json.dumps([name, plain.dtype.str, list(array.shape)]).encode("ascii"))
        total.update(plain.reshape(-1).view(np.uint8).data)
    return total.hexdigest()
