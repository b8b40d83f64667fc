import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from caliper.errors import CaliperError
from caliper.training import checkpoint
from caliper.training.checkpoint import load_checkpoint, save_checkpoint
from caliper.utils import files
from caliper.utils.manifest import write_manifest


def save(folder, n):
    return save_checkpoint(
        folder, {"w": torch.full((3, 2), float(n))}, {"updates": n, "rng": torch.arange(4)}
    )


def loaded(folder):
    weights, state = load_checkpoint(folder)
    assert (weights["w"] == state["updates"]).all() and state["rng"].tolist() == [0, 1, 2, 3]
    return state["updates"]


def test_weights_and_state_come_back(tmp_path):
    shared = torch.randn(4, 3)
    weights = {
        "a": shared,
        "b": shared.T,
        "c": shared[:2],
        "n": torch.tensor(3),
        "h": torch.ones(2, dtype=torch.bfloat16),
    }
    state = {
        "optimiser": {"state": {0: {"exp_avg": torch.randn(2)}}, "param_groups": [{"betas": (0.9, 0.99)}]},
        "phase": "online",
        "done": False,
        "best": None,
        "bits": b"\x00",
    }
    path = save_checkpoint(tmp_path, weights, state)
    assert path == tmp_path / "checkpoints" / "000001"
    weights_back, state_back = load_checkpoint(tmp_path)
    assert weights_back.keys() == weights.keys()
    for name, value in weights.items():
        assert torch.equal(weights_back[name], value) and weights_back[name].dtype == value.dtype
    moment = state_back["optimiser"]["state"][0].pop("exp_avg")
    assert torch.equal(moment, state["optimiser"]["state"][0].pop("exp_avg"))
    assert state_back == state


def test_a_real_optimiser_and_generator_pass(tmp_path):
    net = torch.nn.Linear(2, 1)
    optimiser = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 2)).sum().backward()
    optimiser.step()
    generator = torch.Generator().manual_seed(3)
    save_checkpoint(tmp_path, net.state_dict(), {"opt": optimiser.state_dict(), "rng": generator.get_state()})
    _, state = load_checkpoint(tmp_path)
    optimiser.load_state_dict(state["opt"])
    assert torch.equal(state["rng"], generator.get_state())


def test_the_last_two_are_kept(tmp_path):
    root = tmp_path / "checkpoints"
    (root / ".ssh" / "keys").mkdir(parents=True)
    for n in (1, 2, 3, 4):
        save(tmp_path, n)
    assert sorted(p.name for p in root.iterdir()) == [".ssh", "000003", "000004", "latest"]
    assert loaded(tmp_path) == 4 and (root / ".ssh" / "keys").is_dir()  # nothing else is tidied up


@pytest.mark.parametrize(
    "call", ["mkdir", "save_file", "torch.save", "sync", "rename", "write", "replace", "prune"]
)
def test_a_kill_at_any_step_leaves_a_whole_checkpoint(tmp_path, monkeypatch, call):
    save(tmp_path, 1)
    save(tmp_path, 2)

    class Killed(BaseException):
        pass

    def kill(*args, **kwargs):
        raise Killed

    targets = {
        "mkdir": (Path, "mkdir"),
        "save_file": (checkpoint, "save_file"),
        "torch.save": (checkpoint.torch, "save"),
        "sync": (checkpoint, "sync"),
        "rename": (checkpoint.os, "rename"),
        "write": (Path, "write_text"),
        "replace": (files.os, "replace"),
        "prune": (checkpoint, "_prune"),
    }
    with monkeypatch.context() as patch:
        patch.setattr(*targets[call], kill)
        patch.setattr(checkpoint.shutil, "rmtree", lambda *args, **kwargs: None)  # a kill tidies nothing up
        with pytest.raises(Killed):
            save(tmp_path, 3)
    assert loaded(tmp_path) == (3 if call == "prune" else 2)
    save(tmp_path, 4)
    save(tmp_path, 5)
    assert loaded(tmp_path) == 5
    names = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert len(names) == 3 and names[-1] == "latest", "a later save tidies up what the kill left"


def test_a_kill_while_an_old_one_is_deleted_leaves_nothing_half(tmp_path, monkeypatch):
    for n in (1, 2):
        save(tmp_path, n)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.shutil, "rmtree", lambda *args, **kwargs: None)
        save(tmp_path, 3)
    assert not (tmp_path / "checkpoints" / "000001").exists()
    assert loaded(tmp_path) == 3


@pytest.mark.parametrize("call", [("os", "rename"), ("torch", "save")])
def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch, call):
    save(tmp_path, 1)

    def full(*args, **kwargs):
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(getattr(checkpoint, call[0]), call[1], full)
        with pytest.raises(CaliperError, match="No space left"):
            save(tmp_path, 2)
    assert loaded(tmp_path) == 1
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["000001", "latest"]


def test_no_checkpoint(tmp_path):
    with pytest.raises(CaliperError, match=r"holds no checkpoint; name a run folder"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["weights.safetensors", "state.pt"])
def test_a_damaged_checkpoint_names_the_one_before(tmp_path, name):
    save(tmp_path, 1)
    path = save(tmp_path, 2) / name
    whole = path.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"\x00" * len(whole)):
        path.write_bytes(damaged)
        with pytest.raises(CaliperError, match=r"000002 is damaged.*write 000001 into .*latest"):
            load_checkpoint(tmp_path)
    (tmp_path / "checkpoints" / "latest").write_text("000001\n")
    assert loaded(tmp_path) == 1


class Evil:
    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_code_in_a_checkpoint_never_runs(tmp_path, monkeypatch, write):
    monkeypatch.chdir(tmp_path)
    folder = save(tmp_path, 1)
    write({"updates": Evil()}, folder / "state.pt")
    with pytest.raises(CaliperError, match=r"another state\.pt than was saved"):
        load_checkpoint(tmp_path)
    (folder / "manifest.json").unlink()
    write_manifest(folder, None)  # as somebody would who wants it to be loaded
    with pytest.raises(CaliperError, match="holds something else than plain data"):
        load_checkpoint(tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("bad", [np.float64(1.0), np.zeros(2), Evil(), {1, 2}])
def test_state_that_could_not_be_loaded_is_refused_when_saved(tmp_path, bad):
    with pytest.raises(TypeError, match=r"state\['opt'\]\[1\] is a"):
        save_checkpoint(tmp_path, {}, {"opt": [0, bad]})
    assert not list(tmp_path.iterdir())
