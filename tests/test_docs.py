"""What README and pages tell a reader to type works: commands compose, programs run, every key is told."""

import ast
import importlib.util
import re
import shlex
import tempfile
from dataclasses import fields
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from caliper.agents import AGENTS
from caliper.cli import VERBS
from caliper.config.compose import compose, load, to_yaml
from caliper.config.meanings import meanings
from caliper.encoders import ENCODERS
from caliper.errors import CaliperError
from caliper.rollout.video import write_video
from caliper.tools.convert import FORMATS
from caliper.tools.replay import parse
from caliper.tools.sweep import expand

ROOT = Path(__file__).parent.parent
GENERATED = ROOT / "docs" / "configuration.md"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
PAGES += sorted(page for page in (ROOT / "docs").rglob("*.md") if page != GENERATED)
NOT_RUN = "# not run by the tests"  # the first line of a program that would take too long; readers see it
NEEDS_SERVER = "# needs a server"  # the client of a policy server, which tests/caliper/policies runs
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@cache
def script(name):
    """A script of docs/: `configuration` writes the page of all keys, `make_media` the images."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def commands():
    """Every command line of a page, of a comment in configs/, and of the generated page; each once."""
    found = {}
    for page in PAGES:
        if page.name.startswith("add_"):  # tests/test_add_task.py and test_add_parts.py give their commands
            continue
        text = page.read_text(encoding="utf-8")
        lines = [line for kind, body in BLOCK.findall(text) if kind == "sh" for line in body.splitlines()]
        inline = re.findall(r"`(caliper [^`]+)`", BLOCK.sub("", text))
        for line in [line for line in lines if line.startswith("caliper ")] + inline:
            found.setdefault(shlex.join(shlex.split(line, comments=True)), page.name)
    for path in sorted((ROOT / "configs").rglob("*.yaml")):
        for line in re.findall(r"^# (caliper [a-z]+ .*=.*)$", path.read_text(encoding="utf-8"), re.MULTILINE):
            found.setdefault(line, path.name)
    return [pytest.param(line, id=f"{name}: {line[:60]}") for line, name in found.items()]


def programs():
    """The blocks of Python that import something; the others are excerpts of the code."""
    return [
        pytest.param(body, id=f"{page.name}: {number}")
        for page in PAGES
        for number, (kind, body) in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")))
        if kind == "python"
        and re.search(r"^(import|from) ", body, re.MULTILINE)
        and not body.startswith((NOT_RUN, NEEDS_SERVER))
    ]


def composes(words):
    """The configuration that the words make; no agent or encoder has a key that it does not know."""
    config = compose(words)
    known = {field.name for field in fields(AGENTS[config.agent["name"]][1])} | {"name"}
    assert set(config.agent) <= known
    assert config.encoder["name"] in ENCODERS
    return config


def understood(line):
    """Holds a command to what its verb takes; words in capitals, such as RUN, stand for the reader's own."""
    program, verb, *words = shlex.split(line, comments=True)
    assert program == "caliper" and verb in VERBS
    if verb in ("train", "collect"):
        composes([word for word in words if word not in ("--cfg", "--overwrite")])
    elif verb in ("sweep", "compare"):
        swept = [word for word in words if not word.startswith((f"{verb}.", "launcher="))]
        jobs = expand(swept, Path("runs"), 2, verb)
        for job in {job.variant: job for job in jobs}.values():  # of the seeds, one
            composes(list(job.words))
    elif verb in ("resume", "evaluate", "render"):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "config.yaml")
            encoder = ["encoder=pretrained"] if any(w.startswith("encoder.weights=") for w in words) else []
            path.write_text(to_yaml(compose(encoder)), encoding="utf-8")
            load(path, words[1:], "resume" if verb == "resume" else "evaluate")
        assert not words or "=" not in words[0]
    elif verb == "replay" and words:
        composes(parse(words)[2])
    elif verb == "convert" and words[1:]:
        assert words[2] == "--to" and words[3] in FORMATS
        composes(parse([words[0], *words[4:]])[2])
    elif verb == "tasks" and words:
        composes([f"task={words[0]}", *words[1:]])
    elif verb == "view":
        settings = [word for word in words if "=" in word]
        composes(settings)
        named = [word for word in words if word not in settings and not word.startswith("--")]
        assert len(named) <= 1 + sum(word.startswith("--") for word in words)  # and values of options
    elif verb == "doctor" and words:
        assert words[0] == "--precompile" and words[1].startswith("sm_")
        composes(words[2:])
    elif verb in ("export", "serve"):
        assert [word for word in words if word.isupper()] == (["RUN", "OUT"] if verb == "export" else ["OUT"])
    else:
        assert not any("=" in word for word in words)
        named = [word for word in words if not word.startswith("--")]
        assert len(named) <= (4 if verb == "import" else 1)  # two files, and values of two options


@pytest.mark.parametrize("line", commands())
def test_a_command_composes(line):
    understood(line)


@pytest.mark.parametrize(
    "line",
    [
        "caliper fly RUN",
        "caliper train preset=nobodys",
        "caliper train agent.nobodys=1",
        "caliper compare seed=0,1 online.nobodys=2",
        "caliper render RUN video.nobodys=3",
        "caliper resume RUN seed=1",
        "caliper report RUN seed=1",
    ],
)
def test_a_wrong_command_is_noticed(line):
    with pytest.raises((CaliperError, AssertionError)):
        understood(line)


@pytest.mark.parametrize("program", programs())
def test_a_program_runs(program, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(program, "documentation", "exec"), {"__name__": "documentation"})


def test_the_page_of_all_keys_has_every_key(tmp_path):
    page = tmp_path / "configuration.md"
    script("configuration").write_page(page)
    text = page.read_text(encoding="utf-8")
    sections = {"task", "data", "data.appearance", "data.prior", "reward", "offline", "online", "evaluation"}
    sections |= {"online.appearance", "video", "log", "sim", "parts"}
    for name in meanings():
        group, _, rest = name.partition(".")
        _, _, key = rest.partition(".")
        key = f"{group}.{key}" if group in ("agent", "encoder", "sim") and key else name
        if name not in sections and not key.endswith(".name"):
            assert f"| `{key}` |" in text, f"{name} is not on the page"
    assert "| `online.utd` | `1` | updates per environment step | at least 0, at most 1000 |" in text
    before = page.stat().st_mtime_ns
    script("configuration").write_page(page)
    assert page.stat().st_mtime_ns == before  # Sphinx reads again only what has changed


@pytest.mark.parametrize("name", ["moving.webp", "moving.gif"])
def test_a_film_becomes_a_moving_image(name, tmp_path):
    ramp = np.arange(64, dtype=np.uint8)
    frames = [np.broadcast_to((ramp * 3 + 5 * t)[None, :, None], (48, 64, 3)) for t in range(20)]
    film = write_video(tmp_path / "film.mp4", frames, 20)
    script("make_media").animate(film, tmp_path / name, (0, 0, 32, 48), 64, 10)
    with Image.open(tmp_path / name) as image:
        assert image.size == (64, 96) and image.n_frames == 11  # every second image, and the last
        shown = []
        for i in range(image.n_frames):
            image.seek(i)
            shown.append((np.asarray(image.convert("RGB")).mean(), image.info["duration"]))
    assert shown[-1][0] > shown[0][0] + 20  # it grew brighter
    assert [pause for _, pause in shown] == [100] * 10 + [1200]


def test_every_agent_and_every_task_has_its_page():
    docs = ROOT / "docs"
    assert {path.stem for path in (docs / "algorithms").glob("*.md")} == {*AGENTS, "index"}
    pages = "".join(path.read_text(encoding="utf-8") for path in (docs / "tasks").glob("*.md"))
    for path in (ROOT / "configs" / "task").glob("*.yaml"):
        assert f"`{path.stem}`" in pages


def promises():
    """The tests that the page of promises names, each with its row."""
    text = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
    rows = [row for row in re.findall(r"^\| (.+) \|$", text, re.MULTILINE) if not row.startswith("promised")]
    return [pytest.param(row, id=row.split("|")[0].strip()[:60]) for row in rows]


@pytest.mark.parametrize("row", promises())
def test_every_promise_has_its_test(row):
    promised, tests = row.split(" | ")
    named = re.findall(r"`([^`]+)`", tests)
    assert promised and named and len(named) == len(tests.split(", "))
    for name in named:
        path, _, function = name.partition("::")
        tree = ast.parse((ROOT / "tests" / path).read_text(encoding="utf-8"))
        bodies = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")]
        bodies = [n for n in bodies if function in ("", n.name)]
        assert bodies, f"there is no test {name}"
        for body in bodies:  # and it can fail
            assert re.search(r"\bassert|\braises\(|refused\(|refusal\(", ast.unparse(body)), name
