"""The layers of the house: who may import whom, read from the source."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("agents", "encoders", "envs", "data", "configs")
# What each part may import of ours, next to itself. The glue (src/caliper) may import everything.
LEAVES = {"types", "errors", "limits", "machine"}
MAY: dict[str, set[str]] = {
    "agents": {"encoders"},
    "encoders": set(),
    "envs": set(),
    "data": set(),
    "configs": set(),
}


# The rooms of the glue, from the cellar up.
FLOORS = (
    "utils",
    "config",
    "analysis",
    "importing",
    "rollout",
    "training",
    "launching",
    "tools",
    "policies",
    "viewer",
)


def imports(source: str) -> Iterator[str]:
    """Dotted names that a module imports, wherever in it; `from caliper import x` counts as `caliper.x`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield from (f"caliper.{a.name}" for a in node.names) if base == "caliper" else (base,)


def violations(path: str, source: str) -> list[str]:
    """Imports in `path` (relative to the root) that break the laws."""
    part = path.split("/")[0]
    wrong = []
    for name in imports(source):
        head, _, rest = name.partition(".")
        target = rest.split(".")[0]
        if head in PARTS or name.startswith("."):
            wrong.append(f"{path}: `{name}` must be written as caliper.<part>")
        elif head == "caliper" and part in MAY:
            if target not in MAY[part] | {part} | LEAVES:
                wrong.append(f"{path}: {part} may not import `{name}`")
        elif (
            head == "caliper" and path in {f"src/caliper/{leaf}.py" for leaf in LEAVES} and target != "errors"
        ):
            wrong.append(f"{path}: the leaf may not import `{name}`")
    return wrong


def sources(*folders: str) -> Iterator[tuple[str, str]]:
    for folder in folders:
        for file in sorted((ROOT / folder).rglob("*.py")):
            yield file.relative_to(ROOT).as_posix(), file.read_text()


def test_imports_point_one_way():
    found = [
        v for path, source in sources(*PARTS, "src", "tests", "benchmarks") for v in violations(path, source)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("agents/x.py", "from caliper.envs.base import VectorEnv"),
        ("agents/x.py", "import agents.sac"),
        ("agents/x.py", "from .sac import SAC"),
        ("encoders/x.py", "def f():\n    from caliper import agents"),
        ("envs/x.py", "import caliper.training.run"),
        ("data/buffer.py", "from caliper.envs import make_env"),
        ("src/caliper/types.py", "import caliper.agents"),
        ("tests/x.py", "from data import replay"),
    ],
)
def test_the_checker_sees_a_violation(path, source):
    assert len(violations(path, source)) == 1


def test_the_checker_allows_the_arrows():
    assert violations("agents/x.py", "from caliper.encoders.base import Encoder\nimport torch") == []
    assert violations("data/buffer.py", "from caliper.errors import CaliperError") == []
    assert violations("src/caliper/training/run.py", "from caliper import agents, data, envs") == []


def test_the_glue_is_built_in_floors():
    """A room may use those below it: a walk down from a verb never comes back up."""
    found = []
    for path, source in sources("src"):
        _, _, *inside = path.split("/")
        room = inside[0] if len(inside) > 1 else ""
        if room not in FLOORS:
            continue
        above = FLOORS[FLOORS.index(room) + 1 :]
        for name in imports(source):
            target = name.split(".")[1] if name.startswith("caliper.") else ""
            if target in above or target in ("cli", "__main__"):
                found.append(f"{path}: {room} may not import `{name}`")
    assert not found, "\n".join(found)


def test_every_room_is_a_floor_and_says_what_it_is_for():
    glue = ROOT / "src" / "caliper"
    assert {p.name for p in glue.iterdir() if (p / "__init__.py").exists()} == set(FLOORS)
    rooms = [p.parent for folder in (glue, ROOT / "envs", ROOT / "data") for p in folder.rglob("__init__.py")]
    for room in rooms:
        files = list(room.glob("*.py"))
        assert len(files) <= 14, f"{room} has {len(files)} files: would a stranger find what is in it?"
        assert ast.get_docstring(ast.parse((room / "__init__.py").read_text()))


def test_no_bare_part_is_imported_at_run_time():
    """Importing all of ours leaves no `agents`, `data`, ... behind: another distribution may own them."""
    for path, _ in sources(*PARTS):
        importlib.import_module(
            "caliper." + path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        )
    assert not set(PARTS) & set(sys.modules)


def test_what_runs_on_a_cpu_does_not_wait_for_mujoco_warp():
    """Importing it takes seconds, which every command would pay for."""
    code = (
        "import sys, caliper.training.run, caliper.api, caliper.tools.saved_run\n"
        "from caliper.envs.sim import SimEnv\n"
        "SimEnv('lift', 1, size=8).reset()\n"
        "print('mujoco_warp' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stdout + done.stderr
