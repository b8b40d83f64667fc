"""`caliper import`: a recording of the robosuite family becomes a dataset."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NoReturn

from caliper.errors import CaliperError, no_file
from caliper.importing.demo import Options
from caliper.importing.importer import default_out, import_recording
from caliper.utils.files import refuse_existing

USAGE = (
    "caliper import FILE [OUT] [--task NAME] [--assets FOLDER] [--filter KEY] [--skip-bad] [--keep-length] "
    "[--overwrite]"
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise CaliperError(f"{message}; write: {USAGE}")


def import_file(words: list[str]) -> Path:
    """Imports as a command line says; prints a line for each demo, then the table and the dataset's name.

    Returns:
        The dataset.

    Raises:
        CaliperError: an unknown or incomplete option, or see `import_recording`.
    """
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("FILE", type=Path)
    parser.add_argument("OUT", type=Path, nargs="?")
    parser.add_argument("--task")
    parser.add_argument("--assets", type=Path)
    parser.add_argument("--filter")
    parser.add_argument("--skip-bad", action="store_true")
    parser.add_argument("--keep-length", action="store_true")
    parser.add_argument("--overwrite", action="store_true")
    known = parser.parse_args(words)
    path: Path = known.FILE
    if known.assets is not None and not known.assets.is_dir():
        raise CaliperError(f"--assets {known.assets} is no folder; name the one that holds the meshes")
    if fault := no_file(path):
        raise CaliperError(f"{path} {fault}; name a recording, such as demo.hdf5")
    options = Options(known.task, known.assets, known.filter, known.skip_bad, known.keep_length)
    out = known.OUT or default_out(path, options)
    if out.resolve() == path.resolve():
        raise CaliperError(f"{out} is the recording itself; choose another name for the dataset")
    refuse_existing(out, known.overwrite, "caliper import FILE OUT")
    import_recording(path, out, options, overwrite=known.overwrite)
    print(out)
    return out
