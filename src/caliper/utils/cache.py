"""Where things are kept that can be found out again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Caliper's folder among the user's caches; it need not exist, nor be possible to write to."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path(os.environ.get("HOME", "/nowhere"), ".cache")
    return Path(caches, "caliper")
