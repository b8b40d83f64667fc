"""The page "Add a task", executed: a task in two files outside the package; and code of strangers."""

import hashlib
import json
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest

from caliper.cli import main
from caliper.config import own_task
from caliper.config.compose import collect_command, compose, load, to_yaml
from caliper.errors import CaliperError
from caliper.training import run as train_module
from caliper.utils import own_code
from tests.small_runs import AGENTS, SMALL

PAGE = Path(__file__).parent.parent / "docs" / "add_task.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
RUN = [*SMALL[1:], "encoder=conv_tiny", "encoder.cameras=separate", "device=cpu", *AGENTS["calql"]]
RUN += [
    "task.cameras={agentview: [16, 20], robot0_eye_in_hand: 12}",
    "offline.updates=3",
    "online.env_steps=14",
]
MORE = {"collect": ["task.horizon=6", "data.episodes=4", "data.num_envs=2", "threads=1"], "train": RUN}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The page's two files in a folder of their own, where the commands are given; the caches are empty."""
    blocks = dict(reversed(BLOCK.findall(PAGE.read_text(encoding="utf-8"))))
    (tmp_path / "raise_post.py").write_text(blocks["python"])
    (tmp_path / "raise_post.yaml").write_text(blocks["yaml"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(own_code, "cache_folder", lambda: tmp_path / "caches")
    monkeypatch.setattr(own_task, "_loaded", {})
    monkeypatch.setattr(own_code, "_modules", {})
    yield tmp_path
    from caliper.envs.sim import task_scene
    from caliper.envs.tasks import TASKS

    TASKS.pop("raise_post", None)
    task_scene.cache_clear()


def forget(monkeypatch):
    """As in a new process."""
    from caliper.envs.tasks import TASKS

    TASKS.pop("raise_post", None)
    monkeypatch.setattr(own_task, "_loaded", {})
    monkeypatch.setattr(own_code, "_modules", {})


def refused(capsys, *words):
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(list(words))
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and said.count("\n") == 1
    return said


@pytest.mark.slow
def test_the_page_and_whose_code_runs(files, monkeypatch, capsys):
    commands = [shlex.split(line) for line in BLOCK.findall(PAGE.read_text())[2][1].splitlines()]
    assert [words[1] for words in commands] == ["tasks", "collect", "train", "resume", "evaluate", "report"]
    monkeypatch.setattr(train_module, "write_report", lambda folder: folder / "report.html")
    for _, verb, *words in commands:
        forget(monkeypatch)
        main([verb, *words, *MORE.get(verb, [])])
    printed = capsys.readouterr().out
    assert "Solved when the post's centre is 10 cm above where it stood." in printed
    run = Path("runs/raise_post")
    config = load(run / "config.yaml")
    assert config.task.code == str(files / "raise_post.py") and len(config.task.code_sha256) == 64
    assert json.loads((run / "evaluation.json").read_text())["task"]["name"] == "raise_post"
    assert (run / "report.html").exists()

    forget(monkeypatch)
    shutil.rmtree(files / "caches")  # as for somebody else
    marker = files / "ran"
    said = refused(capsys, "evaluate", str(run))
    assert "have not run before" in said and f"task.code={files / 'raise_post.py'}" in said
    code = files / "raise_post.py"
    code.write_text(code.read_text() + f"\nopen({str(marker)!r}, 'w').close()\n")
    assert "not the code that" in refused(capsys, "evaluate", str(run))
    main(["report", str(run)])
    assert not marker.exists()
    main(["evaluate", str(run), f"task.code={code}"])
    assert marker.exists()
    forget(monkeypatch)
    code.rename(files / "moved.py")
    assert "is gone" in refused(capsys, "resume", str(run))


def test_a_strangers_folder_runs_nothing(files, monkeypatch, capsys):
    """A run folder alone is no reason to run the code that it names, whatever it says of it."""
    code, marker = files / "raise_post.py", files / "ran"
    config = compose(["task=./raise_post.yaml"])
    own_code.notes().unlink()
    forget(monkeypatch)
    code.write_text(f"open({str(marker)!r}, 'w').close()\n{code.read_text()}")
    sha256 = hashlib.sha256(code.read_bytes()).hexdigest()
    run = files / "theirs"
    run.mkdir()
    for named, said in ((sha256, "have not run before"), (config.task.code_sha256, "not the code that")):
        text = to_yaml(config).replace(str(config.task.code_sha256), named)
        (run / "config.yaml").write_text(text)
        for verb in ("evaluate", "resume", "render"):
            found = refused(capsys, verb, str(run))
            assert said in found and f"task.code={code}" in found and not marker.exists()
    assert "no checkpoint" in refused(capsys, "evaluate", str(run), f"task.code={code}")
    assert marker.exists()


def test_the_expert_solves_it(files):
    from caliper.envs.sim import SimEnv
    from tests.envs.conftest import clean_expert

    config = compose(["task=./raise_post.yaml"])
    env = SimEnv(config.task.name, 4, cameras=(), controller="osc_position", control_freq=10, horizon=50)
    expert, solved = clean_expert(env), 0
    for _ in range(50):
        solved += int(env.step(expert.act()).success.sum())
    assert solved >= 4


def test_the_command_that_collects_again_names_the_code(files):
    config = compose(["task=./raise_post.yaml", "data.episodes=7"])
    words = shlex.split(collect_command(config))[2:]
    again = compose(words)
    assert again.task.code_sha256 == config.task.code_sha256 and again.data.episodes == 7
    assert again.dataset_path() == config.dataset_path()


@pytest.mark.parametrize(
    ("yaml", "python", "said"),
    [
        ("task: {name: raise_post}", None, "must say code: FILE.py"),
        ("code: raise_post.py", None, "under task:, its name"),
        ("code: none.py\ntask: {name: a}", None, "none.py cannot be read"),
        ("code: raise_post.py\ntask: {name: lift}", None, "one of Caliper's own"),
        ("code: raise_post.py\ntask: {name: other}", None, "with name = 'other'"),
        ("code: loop.py\ntask: {name: a}", None, "its code is a link in a circle"),
        ("code: pipe.py\ntask: {name: a}", None, "pipe.py cannot be read: it is not a regular file"),
        ("code: raise_post.py\ntask: {name: a}\n'~seed': 1", None, "no key can be left out of a run"),
        ("code: raise_post.py\ntask: {name: a}\nagent: 5", None, "no agent '5'"),
        (None, "1 / 0", "fails: ZeroDivisionError"),
        (None, "def", "fails: SyntaxError"),
    ],
)
def test_mistakes_are_named(files, yaml, python, said):
    if yaml is not None:
        Path("raise_post.yaml").write_text(yaml)
    if python is not None:
        Path("raise_post.py").write_text(python)
    Path("loop.py").symlink_to("loop.py")
    os.mkfifo("pipe.py")
    with pytest.raises(CaliperError, match=re.escape(said)):
        compose(["task=./raise_post.yaml"])
