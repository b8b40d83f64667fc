"""The pages "Add an encoder" and "Add an agent", executed; parts of packages; and code of strangers."""

import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import torch

import caliper
from caliper import parts
from caliper.agents import AGENTS
from caliper.cli import main
from caliper.config.compose import compose, load, to_yaml
from caliper.encoders import ENCODERS
from caliper.errors import CaliperError
from caliper.training import run as train_module
from caliper.utils import own_code
from tests.small_runs import AGENTS as WORDS
from tests.small_runs import SMALL

DOCS = Path(__file__).parent.parent / "docs"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = {"encoder": ("my_encoder.py", "MyEncoder"), "agent": ("my_agent.py", "HalfCalQL")}
RUN = [*SMALL[1:], "task.size=16", "device=cpu", *WORDS["calql"], "offline.updates=3", "online.env_steps=14"]
OWN = {"encoder": [], "agent": ["encoder=conv_tiny"]}


def forget(monkeypatch):
    """As in a new process."""
    for kind, name in parts._loaded:
        (ENCODERS if kind == "encoder" else AGENTS).pop(name, None)
    monkeypatch.setattr(parts, "_loaded", {})
    monkeypatch.setattr(own_code, "_modules", {})


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Both pages' files in a folder of their own, where the commands are given; the caches are empty."""
    for kind, (name, _) in PAGES.items():
        page = (DOCS / f"add_{kind}.md").read_text(encoding="utf-8")
        (tmp_path / name).write_text(dict(reversed(BLOCK.findall(page)))["python"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(own_code, "cache_folder", lambda: tmp_path / "caches")
    forget(monkeypatch)
    yield tmp_path
    forget(monkeypatch)


def refused(capsys, *words):
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(list(words))
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and said.count("\n") == 1
    return said


@pytest.mark.slow
@pytest.mark.parametrize("kind", PAGES)
def test_the_page_and_whose_code_runs(kind, files, monkeypatch, capsys):
    page = (DOCS / f"add_{kind}.md").read_text(encoding="utf-8")
    (text,) = [code for language, code in BLOCK.findall(page) if language == "sh"]
    commands = [shlex.split(line) for line in text.splitlines()]
    assert [words[1] for words in commands] == ["train", "resume", "evaluate", "export", "report"]
    monkeypatch.setattr(train_module, "write_report", lambda folder: folder / "report.html")
    for _, verb, *words in commands:
        forget(monkeypatch)
        main([verb, *words, *(RUN + OWN[kind] if verb == "train" else [])])
    name, made = PAGES[kind]
    run, code = Path("runs/mine"), files / name
    config = load(run / "config.yaml")
    assert getattr(config, kind)["name"] == made and (run / "report.html").exists()
    assert getattr(config.parts, kind) == f"{code}:{made}"
    assert config.encoder.get("width", 8) == 8 and config.agent.get("share", 0.4) == 0.4
    observed = noise_for(run)
    action = caliper.load_run(run).policy().act(*observed)

    # A stranger's policy: the code runs only by its user's word; the author's own opens at once.
    forget(monkeypatch)
    assert (caliper.load_policy("policy").act(*observed) == action).all()
    forget(monkeypatch)
    shutil.rmtree(files / "caches")
    with pytest.raises(CaliperError, match=rf"not run before: policy/{kind}\.py.*trusted=True"):
        caliper.load_policy("policy")
    assert not parts._loaded
    assert (caliper.load_policy("policy", trusted=True).act(*observed) == action).all()

    # A stranger's run.
    forget(monkeypatch)
    shutil.rmtree(files / "caches")
    marker = files / "ran"
    said = refused(capsys, "evaluate", str(run))
    assert "have not run before" in said and f"parts.{kind}={code}:{made}" in said
    code.write_text(code.read_text() + f"\nopen({str(marker)!r}, 'w').close()\n")
    for verb in ("evaluate", "resume", "render"):
        assert "not the code that" in refused(capsys, verb, str(run))
    main(["report", str(run)])
    assert not marker.exists()
    main(["evaluate", str(run), f"parts.{kind}={code}:{made}"])
    assert marker.exists()
    forget(monkeypatch)
    moved = code.rename(files / "moved.py")
    assert "is gone" in refused(capsys, "resume", str(run))
    main(["resume", str(run), f"parts.{kind}={moved}:{made}"])
    assert getattr(load(run / "config.yaml").parts, kind) == f"{moved}:{made}"


def noise_for(run):
    """Images and proprioception of the run's policy, the same every time."""
    spec = caliper.load_run(run).policy().spec
    g = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (len(spec.cameras), 3, 16, 16), dtype=torch.uint8, generator=g)
    return pixels, torch.randn(spec.proprio, generator=g)


def test_a_part_is_a_part_like_any_other(files):
    """Defaults, options, and a preset's keys as far as it has them."""
    encoder, agent = (f"{kind}=./{name}:{made}" for kind, (name, made) in PAGES.items())
    config = compose(["preset=pick_place_tray_demo", encoder, agent, "encoder.latent=20"])
    assert config.encoder == {
        "name": "MyEncoder", "width": 24, "latent": 20, "proprio": 50, "cameras": "stacked"
    }  # fmt: skip
    plain = compose(["preset=pick_place_tray_demo"])
    assert config.agent == plain.agent | {"name": "HalfCalQL", "share": 0.5}
    assert compose(["preset=pick_place_tray_demo", agent, "tf32=true"]).agent == config.agent
    again = compose([f"parts.encoder={config.parts.encoder}"])
    assert again.encoder["name"] == "MyEncoder" and again.parts.encoder_sha256 == config.parts.encoder_sha256


def test_half_of_cal_ql_is_by_hand_half_way(files):
    compose(["agent=./my_agent.py:HalfCalQL"])
    agent = AGENTS["HalfCalQL"][0]
    half = type("Half", (), {"config": type("C", (), {"share": 0.5})})
    q, returns = torch.tensor([[[1.0, 6.0], [2.0, 3.0]]]), torch.tensor([4.0, torch.nan])
    assert agent.calibrate(half, q, returns).tolist() == [[[2.5, 6.0], [2.0, 3.0]]]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["encoder=./none.py:A"], "none.py cannot be read"),
        (["encoder=./my_encoder.py"], "name the class in that file too"),
        (["encoder=./my_encoder.py:Other"], "must define a class Other of caliper.encoders.base.Encoder"),
        (["agent=./my_encoder.py:MyEncoder"], "must define a class MyEncoder of caliper.agents.base.Agent"),
        (["encoder=./bad.py:A"], "fails: ZeroDivisionError"),
        (["encoder=./same.py:Conv"], "is one of Caliper's own"),
        (["encoder=./pipe.py:A"], "pipe.py cannot be read: it is not a regular file"),
        (["encoder=./loop.py:A"], "loop.py is a link in a circle"),
        (["parts.encoder=./my_encoder"], "neither FILE.py:CLASS nor the name of an installed part"),
    ],
)  # fmt: skip
def test_mistakes_are_named(words, said, files, monkeypatch):
    Path("bad.py").write_text("1 / 0\n")
    os.mkfifo("pipe.py")
    Path("loop.py").symlink_to("loop.py")
    Path("same.py").write_text("class Conv: ...\n")
    monkeypatch.setitem(ENCODERS, "Conv", ENCODERS["conv"])
    with pytest.raises(CaliperError, match=re.escape(said)):
        compose(words)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("encoder.wdth=3", "no option 'wdth'; it knows width, latent"),
        ("encoder.width=a", "encoder.width=a has the wrong type; it must be int"),
        ("agent.shre=1", "no key 'shre'"),
        ("agent.share=2", "agent.share=2 makes no sense; it must be at least 0, at most 1"),
    ],
)
def test_options_are_checked_like_any_others(word, said, files, capsys):
    chosen = [f"{kind}=./{name}:{made}" for kind, (name, made) in PAGES.items()]
    assert said in refused(capsys, "train", "task=lift", *chosen, word)


def test_a_strangers_folder_runs_nothing(files, monkeypatch, capsys):
    """Whatever a run folder says of a file, even its right SHA-256, is no reason to run it."""
    code, marker = files / "my_encoder.py", files / "ran"
    code.write_text(f"open({str(marker)!r}, 'w').close()\n{code.read_text()}")
    config = compose(["encoder=./my_encoder.py:MyEncoder"])
    marker.unlink()
    own_code.notes().unlink()
    forget(monkeypatch)
    run = files / "theirs"
    run.mkdir()
    for sha256, said in ((config.parts.encoder_sha256, "not run before"), ("0" * 64, "not the code that")):
        (run / "config.yaml").write_text(to_yaml(config).replace(config.parts.encoder_sha256, sha256))
        for verb in ("evaluate", "resume", "render"):
            assert said in refused(capsys, verb, str(run)) and not marker.exists()
    assert "no checkpoint" in refused(capsys, "evaluate", str(run), f"parts.encoder={code}:MyEncoder")
    assert marker.exists()


@pytest.fixture
def package(files, monkeypatch):
    """A package that offers an encoder and a task, as pip would leave it."""
    site = files / "site"
    (site / "offering").mkdir(parents=True)
    (site / "offering" / "__init__.py").touch()
    shutil.copy("my_encoder.py", site / "offering" / "nets.py")
    blocks = dict(reversed(BLOCK.findall((DOCS / "add_task.md").read_text(encoding="utf-8"))))
    (site / "offering" / "post.py").write_text(blocks["python"])
    (site / "offering" / "post.yaml").write_text(blocks["yaml"].replace("raise_post.py", "post.py"))
    told = site / "offering-1.0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: offering\nVersion: 1.0\n")
    (told / "entry_points.txt").write_text(
        "[caliper.encoders]\nwide = offering.nets:MyEncoder\n"
        "[caliper.tasks]\nraise_post = offering.post:RaisePost\n"
    )
    monkeypatch.syspath_prepend(str(site))
    yield site / "offering"
    from caliper.config import own_task
    from caliper.envs.tasks import TASKS

    TASKS.pop("raise_post", None)
    own_task._loaded.clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "offering"]:
        del sys.modules[name]


def test_parts_of_a_package(package, files, capsys, monkeypatch):
    config = compose(["encoder=wide", "task=raise_post", "encoder.width=9"])
    assert (config.parts.encoder, config.encoder["width"]) == ("wide", 9)
    assert config.encoder["name"] == "wide" and config.task.name == "raise_post"
    assert config.task.code == str(package / "post.py")
    main(["tasks"])
    listed = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    assert "wide" in listed["encoder"] and "raise_post" in listed["task"]
    run = files / "run"
    run.mkdir()
    plain = compose(["encoder=wide"])
    (run / "config.yaml").write_text(to_yaml(plain))
    forget(monkeypatch)
    assert caliper.load_run(run).config().encoder["name"] == "wide"
    forget(monkeypatch)
    (package / "nets.py").write_text("# upgraded\n" + (package / "nets.py").read_text())
    with pytest.raises(CaliperError, match=r"not the code that .* say parts\.encoder=wide"):
        caliper.load_run(run).config()
    assert (
        caliper.load_run(run).config("parts.encoder=wide").parts.encoder_sha256 != plain.parts.encoder_sha256
    )
