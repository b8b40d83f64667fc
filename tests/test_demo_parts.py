"""What `benchmarks/demo_parts.py` measures is where it looks for it."""

import sys
from pathlib import Path

import pytest


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    import demo_parts  # type: ignore[import-not-found]  # found by the path above

    yield demo_parts
    del sys.modules["demo_parts"]


def test_every_part_and_the_renderer_are_found(script):
    assert all(callable(getattr(home, attribute)) for home, attribute in script.PARTS.values())
    assert script.drawn.make_renderer.__module__ == "caliper.envs.render"
