"""Caliper from Python: the same runs as from the command line, and what its envs refuse."""

import contextlib
import io
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

import caliper
from caliper.api import as_words
from caliper.errors import CaliperError


def test_import_is_quick_and_offers_what_it_says():
    code = (
        "import sys, caliper; from caliper import train, CaliperError, Run; print(sorted(caliper.__all__));"
        "print(*[m for m in ('torch', 'hydra', 'mujoco', 'warp', 'h5py', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str(sorted(caliper.__all__)), ""]
    assert set(caliper.__all__) <= set(dir(caliper))
    with pytest.raises(AttributeError, match="has no attribute 'fly'"):
        _ = caliper.fly


def test_keywords_become_words():
    given = as_words("task=lift", seed=1, device=None, tf32=True, online={"env_steps": 5, "utd": 0.5})
    assert given == [
        "task=lift",
        "seed=1",
        "device=null",
        "tf32=true",
        "online.env_steps=5",
        "online.utd=0.5",
    ]
    assert as_words(data={"mixture": [[1.0, 0.3, 0.0]]}) == ["data.mixture=[[1.0,0.3,0.0]]"]
    with pytest.raises(CaliperError, match="seed=<object"):
        as_words(seed=object())


def test_a_run_is_read_where_it_lies(finished):
    run = caliper.load_run(finished.folder)
    assert run.evaluations[0].phase == "offline" and run.evaluations[-1].env_steps == 28
    assert len(run.metrics["updates"]) > 3 and run.config().seed == finished.config.seed
    assert run.report == finished.folder / "report.html"
    with pytest.raises(CaliperError, match=r"is not a run folder: it holds no config\.yaml"):
        caliper.load_run(finished.folder / "videos")


def test_training_in_a_thread_gives_the_run_of_the_command(finished, words, tmp_path, no_report):
    made = []

    def work():
        made.append(caliper.train(*words(), run_dir=tmp_path / "run", video={"episodes": 0}))

    thread = threading.Thread(target=work)
    with contextlib.redirect_stdout(io.StringIO()):
        thread.start()
        thread.join()
    ours, theirs = made[0].policy(), caliper.load_run(finished.folder).policy()
    weights = theirs.network.state_dict()
    assert weights and all(torch.equal(w, weights[name]) for name, w in ours.network.state_dict().items())
    assert ours.card["evaluations"] == theirs.card["evaluations"]


def test_collecting_asks_before_it_replaces(words, dataset, tmp_path):
    path = caliper.collect(*words(), data={"path": tmp_path / "new.hdf5", "episodes": 2})
    assert path == tmp_path / "new.hdf5" and path.exists()
    with pytest.raises(CaliperError, match="is there already"):
        caliper.collect(*words(f"data.path={path}"))


def test_envs_refuse_what_the_trainer_never_does():
    look = {"cameras": ["robot0_eye_in_hand"], "size": 32, "threads": 1, "device": "cpu"}
    env = caliper.make_env("lift", num_envs=2, **look)
    assert env.spec.cameras == ("robot0_eye_in_hand",)
    action = torch.zeros(2, env.action_dim)
    with pytest.raises(CaliperError, match=r"step\(\) was called before reset\(\)"):
        env.step(action)
    for look_at in (env.observe, env.frame):
        with pytest.raises(CaliperError, match=r"\(\) was called before reset\(\): call reset"):
            look_at()
    obs = env.reset(seeds=torch.tensor([3, 4]))
    assert obs.pixels.shape == (2, 1, 3, 32, 32)
    for bad in (float("nan"), float("inf")):
        action[1, 2] = bad
        with pytest.raises(CaliperError, match=rf"holds {bad:g} at \[1, 2\]"):
            env.step(action)
    with pytest.raises(CaliperError, match="the action is str; give a tensor of 2 times 4 finite numbers"):
        env.step("up")
    step = env.step(torch.zeros(2, env.action_dim))
    again = caliper.make_env("lift", **look)
    again.reset(seeds=torch.tensor([4]))
    other = again.step(torch.zeros(1, env.action_dim))
    assert torch.equal(step.obs.pixels[1], other.obs.pixels[0]) and step.obs.pixels.float().std() > 10
    env.set_state(env.get_state())
    assert torch.equal(env.observe().pixels, env.frame().pixels)
    with pytest.raises(CaliperError, match="before reset"):
        env.step(torch.zeros(2, env.action_dim))
    with pytest.raises(CaliperError, match="num_envs=0 must be"):
        caliper.make_env("lift", 0)
    with pytest.raises(CaliperError, match="there is no camera 'nobodys'"):
        caliper.make_env("lift", cameras=["nobodys"])


def test_a_run_acts_as_it_was_evaluated(finished):
    """The policy in the checked envs ends its episodes as the run's own evaluation did."""
    run = caliper.load_run(finished.folder)
    policy, last = run.policy(), run.evaluations[-1]
    env = caliper.make_env("lift", 1, size=16, threads=1, device="cpu", task={"horizon": 6})
    for seed, success in zip(last.seeds, last.episode_success, strict=True):
        obs, ended = env.reset(seeds=torch.tensor([seed])), False
        policy.reset()
        while not ended:
            action = policy.act(obs.pixels[0].numpy(), obs.proprio[0].numpy())
            assert isinstance(action, np.ndarray) and action.dtype == np.float32
            assert torch.equal(torch.from_numpy(action), policy.act(obs.pixels, obs.proprio)[0])
            step = env.step(torch.from_numpy(action)[None])
            obs, ended = step.obs, bool(step.terminated | step.truncated)
        assert bool(step.success) == success
