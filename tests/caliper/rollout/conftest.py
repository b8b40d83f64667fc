"""The fixtures of hand-made datasets, which replay shows."""

from tests.data.conftest import generator, meta

__all__ = ["generator", "meta"]
