"""Evaluation: the same whatever the number of envs, and of a loaded policy as of the trained one."""

import json

import numpy as np
import pytest
import torch

from caliper.agents.base import AgentConfig, Decision
from caliper.agents.probe import PROBED, probe
from caliper.analysis.run_data import read_run
from caliper.analysis.stats import wilson
from caliper.config.build import eval_seeds, make_env
from caliper.data.returns import RewardConfig
from caliper.envs.scripts.experts import Expert
from caliper.envs.sim import SimEnv
from caliper.rollout.episodes import Trajectory
from caliper.rollout.evaluation import _calibration, _Episode, evaluate, write_evaluation
from caliper.tools.saved_run import evaluate_run, load_agent

REWARD = RewardConfig(gamma=0.9)


class Scripted(torch.nn.Module):
    """An agent that is the script; its critic says -2 everywhere."""

    has_critic = True
    config = AgentConfig()

    def __init__(self, env, noise):
        super().__init__()
        self.modes = []
        self.expert = Expert(env, torch.full((env.num_envs,), noise), torch.zeros(env.num_envs))

    def decide(self, obs, deterministic):
        assert deterministic
        self.modes.append(self.training)
        return Decision(self.expert.act(), pi=None)


def lift(num_envs):
    return SimEnv(
        "lift",
        num_envs,
        cameras=(),
        size=8,
        controller="osc_position",
        control_freq=10,
        horizon=22,
        threads=1,
    )


@pytest.fixture(scope="module", autouse=True)
def probed():
    def of_script(agent, obs, decision):
        if not isinstance(agent, Scripted):
            return probe(agent, obs, decision)
        return {name: torch.full((len(obs),), i - 2.0) for i, name in enumerate(PROBED)}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("caliper.rollout.evaluation.probe", of_script)
        yield


@pytest.fixture(scope="module")
def played():
    env = lift(4)
    return evaluate(Scripted(env, 0.8), env, [3, 4, 5, 6, 7, 8], REWARD, "online", 7, 9)


def test_the_number_of_envs_changes_nothing(played):
    result, arrays = played
    assert len(set(result.lengths)) > 2  # else the test would show little
    for num_envs in (1, 3):
        env = lift(num_envs)
        again, same = evaluate(Scripted(env, 0.8), env, result.seeds, REWARD, "online", 7, 9)
        assert again == result
        assert all(np.array_equal(arrays[name], same[name]) for name in arrays)


def test_results_and_returns_belong_together(played, tmp_path):
    result, arrays = played
    won = result.episode_success
    assert 0 < sum(won) < len(won)
    assert result.success_once == sum(won) / 6
    assert result.interval == wilson(sum(won), 6)
    assert (arrays["q"] == -2).all()
    assert all((arrays[name] == i - 2).all() for i, name in enumerate(PROBED))
    for i, (success, length) in enumerate(zip(won, result.lengths, strict=True)):
        here = arrays["episode"] == i
        left = arrays["time_to_go"][here]
        assert left.tolist() == list(range(length, 0, -1))
        # -1 on each step and +10 on the one that succeeds; an episode that fails counts as one without end.
        g = 0.9 ** (left - 1)
        expected = 10 * g - (1 - g) / 0.1 if success else np.full(length, -10.0)
        np.testing.assert_allclose(arrays["mc_return"][here], expected, rtol=1e-5)
        assert success or length == 22
    folder = write_evaluation(tmp_path, result, arrays)
    assert folder.name == "online_00000007_00000009"
    record = json.loads((folder / "evaluation.json").read_text())
    assert record["lengths"] == result.lengths and record["phase"] == "online"
    with np.load(folder / "calibration.npz") as file:
        assert all(np.array_equal(file[name], arrays[name]) for name in arrays)
    assert read_run(tmp_path).problems == ()
    np.savez(folder / "calibration.npz", **arrays | {"q": arrays["q"] + 1})
    assert "calibration.npz: has been changed" in read_run(tmp_path).problems[0]


def test_returns_are_of_the_rewards_that_came():
    """Franka Kitchen's counts: 1, 2, 4 in an episode that ends solved; 1, 1 in one that is cut."""
    row = torch.zeros(len(PROBED))
    solved = Trajectory(0, True, records=[row] * 3, rewards=[1.0, 2.0, 4.0])
    cut = Trajectory(1, False, records=[row] * 2, rewards=[1.0, 1.0])
    reward = RewardConfig(1, -4, False, gamma=0.5)
    arrays = _calibration([_Episode.of(e, reward, True) for e in (solved, cut)])
    assert arrays["mc_return"].tolist() == [-4, -2, 0, -4.5, -3]


def test_the_agent_is_left_as_it_was():
    env = lift(1)
    agent = Scripted(env, 0.0).train()

    def stop():
        if len(agent.modes) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(agent, env, [0], REWARD, "offline", check_stop=stop)
    assert agent.training and agent.modes == [False, False]


def test_no_critic_no_calibration():
    env = lift(2)
    agent = Scripted(env, 0.0)
    agent.has_critic = False
    result, arrays = evaluate(agent, env, [0, 1], REWARD, "offline")
    assert arrays == {} and result.episodes == 2


def test_a_loaded_policy_is_the_trained_one(finished, capsys):
    config, folder = finished.config, finished.folder
    last = sorted(folder.glob("evaluations/online_*"))[-1]
    trained = json.loads((last / "evaluation.json").read_text())
    agent, counters = load_agent(folder, config)
    env = make_env(config, config.evaluation.num_envs)
    result, arrays = evaluate(agent, env, eval_seeds(config, 3), REWARD, "online", counters["env_steps"])
    assert result.lengths == trained["lengths"] and result.episode_success == trained["episode_success"]
    with np.load(last / "calibration.npz") as file:
        assert np.array_equal(file["q"], arrays["q"])  # every action and every value, bit for bit
    result = evaluate_run(folder, config)
    record = json.loads((folder / "evaluation.json").read_text())
    assert record["episode_success"] == result.episode_success
    assert record["episodes"] == config.evaluation.episodes and record["seeds"] == trained["seeds"][:2]
    assert record["phase"] == "online" and record["env_steps"] == 28
    assert "of 2 episodes succeed" in capsys.readouterr().out
