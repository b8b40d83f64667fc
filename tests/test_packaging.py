"""Caliper installs as a wheel, from the sdist and in place, also beside a distribution that owns `agents`."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]
INSTALL = ("install", "--no-deps", "--no-build-isolation", "--no-index")


def packages_on_disk() -> dict[str, Path]:
    """Every folder with Python modules under the mapped folders, by its import name."""
    found = {}
    for name, folder in SETUPTOOLS["package-dir"].items():
        for path in [ROOT / folder, *(p for p in (ROOT / folder).rglob("*") if p.is_dir())]:
            if any(path.glob("*.py")):
                found[".".join([name, *path.relative_to(ROOT / folder).parts])] = path
    return found


def pip(*args: object) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


WHERE = """
import importlib.util, site, sys
site.addsitedir(sys.argv[1])
import agents, caliper
print(agents.OWNER, caliper.__file__, importlib.util.find_spec("caliper.agents").origin, sep="\\n")
"""


def where(site: Path) -> list[str]:
    """Who owns `agents` and where our modules lie, seen by an interpreter whose site folder is `site`."""
    # -S: without the site-packages of this interpreter, where the checkout itself is installed.
    done = subprocess.run([sys.executable, "-S", "-c", WHERE, site], cwd=site, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A copy of what the build reads: a build/ folder left in the checkout would get into later wheels."""
    tree = tmp_path_factory.mktemp("tree") / "caliper"
    for name in [
        *SETUPTOOLS["package-dir"].values(),
        "LICENSE",
        "README.md",
        "pyproject.toml",
        "MANIFEST.in",
    ]:
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        copy(source, tree / name)
    return tree


@pytest.fixture(scope="module")
def wheel(tree, tmp_path_factory) -> Path:
    """The wheel built from the sdist, so that both are seen to be complete."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--sdist", "--outdir", str(out), str(tree)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (sdist,) = out.glob("*.tar.gz")
    pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", out, sdist)
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture
def other_agents(tmp_path) -> Path:
    """Another project's distribution, which owns a top-level package `agents`."""
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "__init__.py").write_text("OWNER = 'somebody else'\n")
    (tmp_path / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "other-agents"\nversion = "1"\n[tool.setuptools]\npackages = ["agents"]\n'
    )
    return tmp_path


def test_every_sub_package_is_listed():
    on_disk = set(packages_on_disk())
    listed = set(SETUPTOOLS["packages"])
    assert on_disk - listed == set(), "add these to [tool.setuptools] packages in pyproject.toml"
    assert listed - on_disk == set(), "these are listed in pyproject.toml but are not there"


def test_every_sub_package_has_an_init():
    assert [name for name, path in packages_on_disk().items() if not (path / "__init__.py").exists()] == []


def test_type_checkers_see_every_mapped_folder():
    folders = {n.removeprefix("caliper."): d for n, d in SETUPTOOLS["package-dir"].items() if n != "caliper"}
    links = {p.name: os.readlink(p) for p in (ROOT / "typings" / "caliper").iterdir()}
    assert links == {name: f"../../{folder}" for name, folder in folders.items()}


def test_wheel_holds_all_modules_and_configs(wheel):
    names = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    assert {n.split("/")[0] for n in names} == {"caliper"}, (
        "nothing but `caliper` may be put at the top level"
    )
    wanted = {"caliper/py.typed"}
    for name, path in packages_on_disk().items():
        wanted |= {f"{name.replace('.', '/')}/{file.name}" for file in path.glob("*.py")}
    configs = ROOT / SETUPTOOLS["package-dir"]["caliper.configs"]
    wanted |= {f"caliper/configs/{p.relative_to(configs).as_posix()}" for p in configs.rglob("*.yaml")}
    wanted.add("caliper/envs/scripts/ant_walker.npz")
    assert names == wanted


def test_wheel_lives_beside_another_agents(wheel, other_agents, tmp_path_factory):
    site = tmp_path_factory.mktemp("site")
    for project in (other_agents, wheel):
        pip(*INSTALL, "--target", site, project)
    ours = site / "caliper"
    assert where(site) == ["somebody else", f"{ours}/__init__.py", f"{ours}/agents/__init__.py"]


def test_editable_lives_beside_another_agents(tree, other_agents, tmp_path_factory):
    site = tmp_path_factory.mktemp("site")
    pip(*INSTALL, "--target", site, other_agents)
    pip(*INSTALL, "--target", site, "--editable", tree)
    assert where(site) == ["somebody else", f"{tree}/src/caliper/__init__.py", f"{tree}/agents/__init__.py"]


def pins() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    return dict(line.split("==") for line in lines)


def test_constraints_pin_every_declared_dependency():
    extras = PROJECT["project"]["optional-dependencies"].values()
    declared = {re.split(r"[<>=\[ ]", d)[0] for d in sum(extras, PROJECT["project"]["dependencies"])}
    assert declared - set(pins()) == set()
    assert "robosuite" in pins()


def test_readme_speaks_of_make_verbs_that_exist():
    verbs = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for name in ("README.md", "CONTRIBUTING.md", ".ci/run"):
        for line in re.findall(r"(?:^|`)make ([a-z]+(?: [a-z]+)*)", (ROOT / name).read_text(), re.MULTILINE):
            assert set(line.split()) <= verbs, f"{name} names a verb that the Makefile lacks: make {line}"
