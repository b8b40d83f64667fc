"""A run that was stopped anywhere and resumed gives the numbers of one that was not."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from caliper.agents.sac import SAC
from caliper.config.compose import load
from caliper.envs.sim import SimEnv
from caliper.errors import CaliperError
from caliper.training import run as train_module
from caliper.training.checkpoint import load_checkpoint
from caliper.training.interrupt import Interrupt, InterruptedRunError
from caliper.training.run import resume, train
from caliper.utils.files import locked
from caliper.utils.ranks import Ranks
from tests.data.test_robomimic import unseal

pytestmark = pytest.mark.usefixtures("no_report")


class StopAt(Interrupt):
    """Is asked to stop at the n-th place where the run can."""

    at = 0

    def __init__(self, folder: Path, ranks: Ranks) -> None:
        super().__init__(folder, ranks)
        self.checks = 0

    def check(self) -> None:
        self.checks += 1
        self.requested = self.checks == self.at
        super().check()


def table(folder):
    """metrics.csv without its two clocks."""
    lines = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]
    return [line[:3] + line[5:] for line in lines]


def evaluations(folder):
    found = {}
    for path in sorted(folder.glob("evaluations/*")):
        with np.load(path / "calibration.npz") as arrays:
            found[path.name] = (
                (path / "evaluation.json").read_text(),
                {k: v.tolist() for k, v in arrays.items()},
            )
    return found


def assert_same_run(folder, finished):
    """Everything that a run ends with is bit for bit that of the run that was not interrupted."""
    (weights, state), (expected, expected_state) = load_checkpoint(folder), load_checkpoint(finished.folder)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert_equal(state, expected_state)
    assert table(folder) == table(finished.folder)
    assert evaluations(folder) == evaluations(finished.folder)


def assert_equal(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a.nan_to_num(7), b.nan_to_num(7))
    else:
        assert a == b


# 4 bc updates; the evaluation at 0 updates (6 steps), 3 updates, that at 3, 3 updates, the last (2 * 6).
PLACES = [
    pytest.param(3, {"bc_updates": 2, "updates": 0}, id="bc"),
    pytest.param(7, {"bc_updates": 4, "evaluated": -1}, id="first evaluation"),
    pytest.param(13, {"updates": 2, "evaluated": 0}, id="offline"),
    pytest.param(26, {"updates": 6, "evaluated": 3, "online": False}, id="last", marks=pytest.mark.slow),
    pytest.param(38, {"online": True, "env_steps": 6, "updates": 6}, id="online, mid-episode"),
    pytest.param(39, {"env_steps": 8, "updates": 6, "due": 1.5}, id="online, updates due"),
    pytest.param(40, {"env_steps": 8, "updates": 7, "due": 0.5}, id="a fraction due", marks=pytest.mark.slow),
    pytest.param(70, {"online": True, "env_steps": 24}, id="later", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("at", "counters"), PLACES)
def test_a_stopped_run_goes_on_exactly(at, counters, configure, finished, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(StopAt, "at", at)
        patch.setattr(train_module, "Interrupt", StopAt)
        with pytest.raises(InterruptedRunError, match=f"caliper resume {folder}"):
            train(configure(f"run_dir={folder}"))
    _, state = load_checkpoint(folder)
    assert {name: state["counters"][name] for name in counters} == counters
    resume(folder, load(folder / "config.yaml", []))
    assert_same_run(folder, finished)


class Died(BaseException):
    """A kill: nothing is saved."""


@pytest.mark.parametrize(("owner", "method", "call"), [(SAC, "update", 5), (SimEnv, "step", 38)])
def test_a_killed_run_repeats_what_its_last_checkpoint_lacks(
    owner, method, call, configure, finished, tmp_path, monkeypatch
):
    calls, original = [], getattr(owner, method)

    def die(self, *args, **kwargs):
        calls.append(self)
        if len(calls) == call:
            raise Died
        return original(self, *args, **kwargs)

    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(owner, method, die)
        with pytest.raises(Died):
            train(configure(f"run_dir={folder}"))
    resume(folder, load(folder / "config.yaml", []))
    assert_same_run(folder, finished)


def test_a_finished_run_is_not_changed_by_a_resume(configure, finished, tmp_path):
    folder = tmp_path / "run"
    train(configure(f"run_dir={folder}"))
    digest = hashlib.sha256((folder / "metrics.csv").read_bytes()).digest()
    resume(folder, load(folder / "config.yaml", []))
    assert hashlib.sha256((folder / "metrics.csv").read_bytes()).digest() == digest
    assert_same_run(folder, finished)  # also: the same seed gives the same run


def test_a_run_can_be_made_longer(configure, finished, tmp_path):
    folder = tmp_path / "run"
    train(configure(f"run_dir={folder}", "online.env_steps=24", "evaluation.final_episodes=2"))
    longer = ["online.env_steps=28", "evaluation.final_episodes=3"]
    resume(folder, load(folder / "config.yaml", longer, "resume"))
    assert load(folder / "config.yaml", []).online.env_steps == 28
    weights, _ = load_checkpoint(folder)
    expected, _ = load_checkpoint(finished.folder)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_a_checkpoint_of_another_network_is_refused(configure, tmp_path):
    folder = tmp_path / "run"
    train(configure(f"run_dir={folder}", "online.env_steps=2", "offline.updates=1"))
    before = (folder / "config.yaml").read_bytes()
    with pytest.raises(CaliperError, match=r"agent.critic_hidden cannot change when a run goes on: .*\[16\]"):
        load(folder / "config.yaml", ["agent.critic_hidden=[8]"], "resume")
    config = load(folder / "config.yaml")
    config.agent["critic_hidden"] = [8]
    with pytest.raises(CaliperError, match="another configuration or version"):
        resume(folder, config)
    assert (folder / "config.yaml").read_bytes() == before  # what is refused leaves no trace


def test_what_changes_is_said_and_kept(configure, tmp_path, capsys):
    folder = tmp_path / "run"
    train(configure(f"run_dir={folder}", "online.env_steps=2", "offline.updates=1"))
    resume(folder, load(folder / "config.yaml", ["online.env_steps=4", "log.every=2"], "resume"))
    assert "changed: online.env_steps=4, was 2; log.every=2, was 1" in capsys.readouterr().out
    (line,) = (folder / "history.jsonl").read_text().splitlines()
    assert json.loads(line)["changes"][0] == {"key": "online.env_steps", "before": 2, "after": 4}
    resume(folder, load(folder / "config.yaml", [], "resume"))
    assert len((folder / "history.jsonl").read_text().splitlines()) == 1


def test_a_phase_that_is_over_keeps_its_length(configure, tmp_path):
    folder = tmp_path / "run"
    train(configure(f"run_dir={folder}", "online.env_steps=4", "offline.updates=1"))
    before = (folder / "config.yaml").read_bytes()
    for word, said in (
        ("online.env_steps=2", "online.env_steps=2 comes too late: .* has made 4 steps"),
        ("offline.updates=9", "offline.updates=9 comes too late: .* ended after 1 updates"),
    ):
        with pytest.raises(CaliperError, match=said):
            resume(folder, load(folder / "config.yaml", [word], "resume"))
    assert (folder / "config.yaml").read_bytes() == before


def test_a_run_keeps_out_of_a_folder_with_other_things(configure, tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(CaliperError, match=r"holds other things \(thesis.tex\)"):
        train(configure(f"run_dir={tmp_path}"))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_run_is_found_from_another_folder(configure, dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(dataset.parent)
    train(configure(f"run_dir={tmp_path / 'run'}", f"data.path={dataset.name}", "online.env_steps=2"))
    monkeypatch.chdir(tmp_path)
    config = load(tmp_path / "run" / "config.yaml", ["online.env_steps=4"], "resume")
    assert config.data.path == str(dataset)
    resume(tmp_path / "run", config)


def test_another_dataset_under_the_same_name_is_refused(configure, dataset, tmp_path):
    path, folder = tmp_path / "lift.hdf5", tmp_path / "run"
    shutil.copy(dataset, path)
    train(configure(f"run_dir={folder}", f"data.path={path}", "online.env_steps=2", "offline.updates=1"))
    before = (folder / "config.yaml").read_bytes()
    with h5py.File(path, "r+") as file:
        file["data/demo_0/actions"][...] *= -1
        unseal(file)
    with pytest.raises(CaliperError, match=r"holds another dataset .* than this run began with"):
        resume(folder, load(folder / "config.yaml", ["online.env_steps=4"], "resume"))
    assert (folder / "config.yaml").read_bytes() == before


def test_two_runs_do_not_begin_in_one_folder(configure, tmp_path):
    folder = tmp_path / "run"
    with locked(folder), pytest.raises(CaliperError, match="another process is at work"):
        train(configure(f"run_dir={folder}"))
    assert [path.name for path in folder.iterdir()] == [".lock"]


@pytest.mark.slow
def test_ctrl_c_saves_and_says_how_to_go_on(words, finished, tmp_path):
    folder = tmp_path / "run"
    command = [
        sys.executable,
        "-c",
        "from caliper.cli import main; main()",
        "train",
        *words(f"run_dir={folder}"),
    ]
    process = subprocess.Popen(
        [*command, "offline.updates=100000", "offline.eval_every=100000"], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while (
        not (folder / "metrics.csv").exists() or "critic/td_loss" not in (folder / "metrics.csv").read_text()
    ):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"caliper: stopped and saved; go on with: caliper resume {folder}" in said
    assert "Traceback" not in said
    _, state = load_checkpoint(folder)
    assert state["counters"]["updates"] == len([row for row in table(folder) if row[0] == "offline"]) - 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_other_signals_save_as_ctrl_c_does(number, tmp_path):
    before = signal.signal(number, signal.SIG_DFL)  # whatever the tests were started under, nohup say
    try:
        with Interrupt(tmp_path) as interrupt:
            os.kill(os.getpid(), number)
            with pytest.raises(InterruptedRunError, match="stopped and saved"):
                interrupt.check()
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_a_thread_has_no_signals_and_needs_none(tmp_path):
    with ThreadPoolExecutor() as pool:
        assert pool.submit(lambda: Interrupt(tmp_path).__enter__().check()).result() is None


def test_the_second_ctrl_c_stops_at_once(tmp_path, capsys):
    before = signal.getsignal(signal.SIGINT)
    with Interrupt(tmp_path) as stop:
        stop.check()
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(InterruptedRunError):
            stop.check()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    assert "Ctrl-C again" in capsys.readouterr().err


def test_other_signals_ask_however_often_they_come(tmp_path, capsys):
    """A terminal that is closed and its shell both send SIGHUP."""
    before = [signal.getsignal(s) for s in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)]
    with Interrupt(tmp_path) as stop:
        for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM, signal.SIGTERM):
            os.kill(os.getpid(), number)
        with pytest.raises(InterruptedRunError):
            stop.check()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert [signal.getsignal(s) for s in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)] == before
    assert capsys.readouterr().err.count("stopping; Ctrl-C stops at once") == 1
