"""A run under a frozen encoder of a local file: features instead of images, resume, evaluation, export."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import get_model

import caliper
from caliper.cli import main
from caliper.config.build import learner_spec, make_agent, make_envs, obs_spec
from caliper.config.compose import load
from caliper.encoders import pretrained
from caliper.errors import CaliperError
from caliper.tools.saved_run import evaluate_run
from caliper.training.checkpoint import load_checkpoint
from caliper.training.run import resume, train
from caliper.utils.foreign import file_digest

pytestmark = pytest.mark.usefixtures("no_report")


@pytest.fixture
def file(tmp_path):
    torch.manual_seed(1)
    path = tmp_path / "resnet18.safetensors"
    save_file(get_model("resnet18", weights=None).state_dict(), path)
    return path


def words(file, *more):
    return ["encoder=pretrained", f"encoder.weights={file}", "encoder.size=32", "task.size=16", *more]


def test_envs_show_features_of_what_is_seen(configure, file):
    config = configure(*words(file, "task.frame_stack=2"))
    env, plain = make_envs(config, 2), make_envs(configure("task.size=16", "task.frame_stack=2"), 2)
    assert env.spec == learner_spec(config) and obs_spec(config) == plain.spec
    agent = make_agent(config, "cpu", obs_spec(config))  # looks at images
    kept = make_agent(config, "cpu")  # at features
    kept.load_state_dict({k: v for k, v in agent.state_dict().items() if ".frozen." not in k})
    seeds = torch.tensor([3, 4])
    seen, frozen = [], pretrained.frozen_backbone(config.encoder, "cpu")
    hook = frozen.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    features, images = env.reset(seeds=seeds), plain.reset(seeds=seeds)
    v = len(env.spec.cameras)
    for _ in range(2 * config.task.horizon + 1):  # over the ends of episodes
        assert features.more["features"].shape == (2, v, 2 * 512, 1, 1)
        action = agent.act(images, deterministic=True)
        torch.testing.assert_close(kept.act(features, deterministic=True), action)
        ours, theirs = env.step(action), plain.step(action)
        torch.testing.assert_close(
            kept.act(ours.final_obs, deterministic=True), agent.act(theirs.final_obs, deterministic=True)
        )
        features, images = ours.obs, theirs.obs
    hook.remove()
    # Each frame once: the first, one after each action, and one more where each of two episodes began anew.
    assert sum(seen) == 2 * v * (1 + 2 * config.task.horizon + 1 + 2)


@pytest.mark.slow
def test_a_run_keeps_features_and_goes_on(configure, file, tmp_path, capsys):
    whole, cut, out = tmp_path / "whole", tmp_path / "cut", tmp_path / "policy"
    train(configure(*words(file, f"run_dir={whole}", "log.checkpoint_minutes=1e9")))
    told = capsys.readouterr().out
    assert "licence unknown: ask" in told and "random shift (agent.shift_pad=4) does not act" in told
    noted = json.loads((whole / "pretrained.json").read_text())
    assert noted["weights_sha256"] == file_digest(file) and noted["licence"].startswith("unknown")
    config = load(whole / "config.yaml")
    assert config.encoder["sha256"] == noted["weights_sha256"] and config.encoder["weights"] == str(file)
    weights, state = load_checkpoint(whole)
    assert not any("frozen" in name for name in weights) and state["online"]["features"].shape[2] == 512
    train(configure(*words(file, f"run_dir={cut}", "online.env_steps=16")))
    moved = shutil.move(file, tmp_path / "moved.safetensors")
    pretrained._frozen.cache_clear()  # as in another process
    with pytest.raises(CaliperError, match=r"resnet18.safetensors cannot be read"):
        resume(cut, load(cut / "config.yaml", ["online.env_steps=28"], "resume"))
    resume(cut, load(cut / "config.yaml", ["online.env_steps=28", f"encoder.weights={moved}"], "resume"))
    whole_rows, cut_rows = (
        {tuple(row[:3] + row[5:]) for row in csv.reader((folder / "metrics.csv").read_text().splitlines())}
        for folder in (whole, cut)
    )
    assert len(whole_rows) > 10 and whole_rows <= cut_rows
    assert evaluate_run(cut, load(cut / "config.yaml")).episodes
    with pytest.raises(CaliperError, match=r"encoder.size cannot change"):
        load(cut / "config.yaml", ["encoder.size=64"], "resume")
    with pytest.raises(CaliperError, match=r"weights=random, but this run began with a file"):
        evaluate_run(cut, load(cut / "config.yaml", ["encoder.weights=random"]))
    caliper.load_run(cut).export(out)
    assert noted["weights_sha256"] in (out / "README.md").read_text()
    moved.unlink()  # an exported policy holds the frozen weights itself
    policy = caliper.load_policy(out)
    images = np.random.default_rng(0).integers(0, 256, (len(policy.spec.cameras), 3, 16, 16), np.uint8)
    action = policy.act(images, np.zeros(policy.spec.proprio, np.float32))
    assert action.shape == (policy.action_dim,) and np.isfinite(action).all()


@pytest.mark.slow
def test_a_fine_tuned_run_needs_the_file_no_more(configure, file, tmp_path):
    run = tmp_path / "run"
    train(configure(*words(file, f"run_dir={run}", "encoder.frozen=false", "online.env_steps=16")))
    file.unlink()
    config = load(run / "config.yaml")
    assert config.encoder["sha256"] and evaluate_run(run, config).episodes
    assert caliper.load_run(run).policy().action_dim
    resume(run, load(run / "config.yaml", ["online.env_steps=28"], "resume"))


def test_the_command_lists_and_checks(capsys, file):
    main(["pretrained"])
    listed = capsys.readouterr().out
    for word in ("resnet18-f37072fd.pth", "R3M", "dinov2_vits14", "downloads nothing", "SWAG"):
        assert word in listed
    main(["pretrained", str(file), "arch=resnet18"])
    assert "resnet18 with the weights of" in capsys.readouterr().out
    main(["pretrained", str(file)])
    assert "encoder: resnet18 " in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["pretrained", str(file), "arch=resnet50"])
    assert "does not fit arch=resnet50: layer1.0.conv1.weight is" in capsys.readouterr().err
