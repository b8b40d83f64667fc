"""A run that is over in seconds: every part is real, and small. Finished ones are shared by the tests."""

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

import pytest

from caliper.config.compose import compose
from caliper.config.schema import RunConfig
from caliper.rollout.collect import collect
from caliper.training import run as train_module
from caliper.training.run import train
from tests.small_runs import AGENTS, SMALL

WORDS = [
    *SMALL,
    "encoder=conv_tiny",
    "device=cpu",
    "task.size=16",
    "offline.bc_updates=4",
    "offline.updates=6",
    "offline.eval_every=3",
    "online.env_steps=28",
    "online.utd=0.75",
    "online.eval_every=12",
]


@pytest.fixture(scope="session")
def dataset(tmp_path_factory) -> Path:
    """Four episodes of the expert, cut after six steps."""
    path = tmp_path_factory.mktemp("data") / "lift.hdf5"
    return collect(compose(WORDS), path)


@pytest.fixture(scope="session")
def words(dataset):
    """The command line of the small run of an agent, with more of it."""

    def make(*more: str, agent: str = "calql") -> list[str]:
        return [*WORDS, f"agent={agent}", *AGENTS[agent], f"data.path={dataset}", *more]

    return make


@pytest.fixture(scope="session")
def configure(words):
    """The configuration of the small run."""

    def make(*more: str, agent: str = "calql") -> RunConfig:
        return compose(words(*more, agent=agent))

    return make


@dataclass
class Finished:
    """A run that was not interrupted, and what it printed."""

    folder: Path
    config: RunConfig
    printed: str


@pytest.fixture(scope="session")
def finished(configure, tmp_path_factory) -> Finished:
    """The small run of Cal-QL with a video and a report."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    config = configure(f"run_dir={folder}", "video.episodes=2", "video.size=48")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        train(config)
    return Finished(folder, config, printed.getvalue())


@pytest.fixture
def no_report(monkeypatch):
    """Leaves out the report, whose figures take longer than the small run."""
    monkeypatch.setattr(train_module, "write_report", lambda folder: folder / "report.html")
