"""What `benchmarks/demo_parts.py` measures is where it looks for it."""

import pytest


@pytest.fixture
def script(benchmark_script):
    return benchmark_script("demo_parts")


def test_every_part_and_the_renderer_are_found(script):
    assert all(callable(getattr(home, attribute)) for home, attribute in script.PARTS.values())
    assert script.drawn.make_renderer.__module__ == "caliper.envs.render"
