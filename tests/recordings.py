"""Real recordings, unpacked, and copies of them that tests change. For a conftest to import."""

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest

from caliper.data.formats.recordings import Recording, open_recording

FIXTURES = Path(__file__).parent / "fixtures" / "recordings"
Edit = Callable[[h5py.File], None]


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> dict[str, Path]:
    """Each recording by its name, in a folder of its own with the model that lay beside it."""
    root, found = tmp_path_factory.mktemp("recordings"), {}
    for packed in sorted(FIXTURES.glob("*.hdf5.gz")):
        name = packed.name.removesuffix(".hdf5.gz")
        found[name] = root / name / "demo.hdf5"
        found[name].parent.mkdir()
        found[name].write_bytes(gzip.decompress(packed.read_bytes()))
        if (model := FIXTURES / f"{name}.xml.gz").exists():
            (found[name].parent / "models").mkdir()
            (found[name].parent / "models" / "model_1.xml").write_bytes(gzip.decompress(model.read_bytes()))
    return found


@pytest.fixture(scope="session")
def recordings(files) -> dict[str, Recording]:
    return {name: open_recording(path) for name, path in files.items()}


@pytest.fixture
def edited(files, tmp_path) -> Callable[[str, Edit], Path]:
    """A copy of a recording, changed."""

    def edit(name: str, change: Edit) -> Path:
        folder = tmp_path / f"edited_{name}"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(files[name].parent, folder)
        with h5py.File(folder / "demo.hdf5", "r+") as file:
            change(file)
        return folder / "demo.hdf5"

    return edit
