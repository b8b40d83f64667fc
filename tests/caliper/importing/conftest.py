"""Recordings, and the datasets that they become."""

from collections.abc import Callable
from pathlib import Path

import pytest

from caliper.importing.controller import Settings, read_settings
from caliper.importing.demo import Options
from caliper.importing.importer import import_recording
from tests.recordings import edited, files, recordings  # noqa: F401  # fixtures


@pytest.fixture(scope="session")
def imported(files, tmp_path_factory) -> Callable[[str], tuple[Path, list[str]]]:  # noqa: F811
    """The dataset that a recording becomes, and what was said; made once."""
    done: dict[str, tuple[Path, list[str]]] = {}
    folder = tmp_path_factory.mktemp("imported")

    def get(name: str) -> tuple[Path, list[str]]:
        if name not in done:
            said: list[str] = []
            out = import_recording(files[name], folder / f"{name}.hdf5", Options(), said.append)
            done[name] = (out, said)
        return done[name]

    return get


@pytest.fixture
def settings(recordings) -> Settings:  # noqa: F811
    return read_settings(recordings["robosuite141_lift"].settings["controller_configs"])
