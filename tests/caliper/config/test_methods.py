"""Every method of the field through the same driver: offline, over the switch, online, and resumed."""

from dataclasses import fields

import pytest
import torch

from caliper.agents import AGENTS
from caliper.analysis.run_data import read_run
from caliper.config.compose import compose
from caliper.config.meanings import choices
from caliper.training.checkpoint import load_checkpoint
from caliper.training.run import resume, train
from tests.caliper.conftest import WORDS
from tests.small_runs import ACTOR, CRITIC, SAMPLES

pytestmark = pytest.mark.usefixtures("no_report")
METHODS = sorted(choices("agent"))
QUICK = ("rlpd", "qtopt")  # the others are like one of those or like what other tests run
SMALL = ["obs=state", "video.episodes=0", "agent.n_critics=3", "online.warmup_steps=6", "online.utd=1"]


def configuration(method, dataset, folder, *more):
    """The small run of a method; what its agent doesn't know is left out, and what makes the method kept."""
    own = compose([f"agent={method}"])
    known = {field.name for field in fields(AGENTS[own.agent["name"]][1])} & own.agent.keys()
    skip = {"offline.bc_updates", "offline.updates"}
    words = [word for word in WORDS if word.partition("=")[0] not in skip and word != "encoder=conv_tiny"]
    words += [f"offline.bc_updates={4 if AGENTS[own.agent['name']][0].has_actor else 0}"]
    words += [f"offline.updates={min(own.offline.updates, 6)}"]
    words += [*ACTOR, *CRITIC, *SAMPLES]
    words += SMALL
    words += [f"data.prior.path={dataset}"] if method == "cog" else []

    def fits(word):
        key = word.partition("=")[0]
        return not key.startswith("agent.") or key.removeprefix("agent.") in known

    words = [f"agent={method}", *filter(fits, words), f"data.path={dataset}", f"run_dir={folder}", *more]
    return compose(words)


@pytest.mark.parametrize(
    "method", [m if m in QUICK else pytest.param(m, marks=pytest.mark.slow) for m in METHODS]
)
def test_a_method_runs_both_phases_and_resumes_exactly(method, dataset, tmp_path):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    config = configuration(method, dataset, whole)
    train(config)
    run = read_run(whole)
    assert not run.problems and run.last("offline") and run.last("online").env_steps == 28
    assert run.last("offline").updates == config.offline.updates
    assert bool(run.last("online").calibration) == AGENTS[config.agent["name"]][0].has_critic
    train(configuration(method, dataset, halves, "online.env_steps=12"))
    resume(halves, configuration(method, dataset, halves))
    a, b = load_checkpoint(whole), load_checkpoint(halves)
    assert a[0].keys() == b[0].keys() and all(torch.equal(a[0][key], b[0][key]) for key in a[0])
    assert a[1]["counters"]["updates"] == b[1]["counters"]["updates"]


def test_methods_differ_in_what_they_keep_and_when_they_learn():
    sac, mixed, rlpd = (compose([f"agent={m}"]) for m in ("sac", "sac_data", "rlpd"))
    assert (sac.offline.updates, sac.online.mixing) == (0, 0.0)
    assert (mixed.offline.updates, mixed.online.mixing) == (0, 0.5)
    assert (rlpd.offline.updates, rlpd.online.mixing, rlpd.online.utd) == (0, 0.5, 4.0)
    wsrl = compose(["agent=wsrl"])
    assert wsrl.offline.updates > 0 and wsrl.online.mixing == 0.0 and wsrl.online.utd == 4.0
    assert compose(["agent=cql_sac"]).agent["conservative_weight_online"] == 0.0
    assert compose(["agent=q_learning"]).agent["conservative_weight"] == 0.0
    assert compose([]).method is None
