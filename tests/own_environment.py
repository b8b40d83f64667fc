"""Environments of other libraries for slow tests: made by pip beside this one, which lends its packages."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def own_environment(folder: Path, *packages: str) -> Path:
    """The interpreter of a new environment that has some packages of PyPI besides all that is here.

    What they want in another version is installed there and wins. Without a network the test is skipped.
    """
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    (site,) = folder.glob("lib/python3*/site-packages")
    here = [path for path in sys.path if path.endswith("site-packages")]
    # `addsitedir` and not a plain path: this checkout is installed by a .pth file of its own.
    (site / "here.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in here))
    python = folder / "bin" / "python"
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode:
        pytest.skip(f"pip cannot install {' '.join(packages)} here: {done.stderr.strip().splitlines()[-1]}")
    return python


def run(python: Path, *words: str) -> str:
    """What a program printed, which must succeed."""
    done = subprocess.run([str(python), *words], cwd=ROOT, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
