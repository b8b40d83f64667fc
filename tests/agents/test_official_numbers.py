"""The official Cal-QL code's own numbers: losses and weights over three optimiser steps, to 1e-5.

`tests/fixtures/calql_fixture.npz` holds inputs (`in.*`) and outputs of the unmodified official step
(nakamotoo/Cal-QL, JaxCQL/conservative_sac.py) with injected noise: 5 observation entries, 3 actions, batch 8,
4 sampled actions, two hidden layers of 16, gamma .99, tau .005, weight 5, learning rates 1e-4 and 3e-4.
A variant has `metrics_json[name]["s1".."s3"]` and the flat weights `name.s1.*` and `name.s3.*`.

To check a variant whose numbers are in such a file, add a line to VARIANTS: its name there, the agent, and
the config keys that differ. For the switches that the four below do not touch these would be:

    "calql_noIS": ("calql", {"importance_sampling": False}),
    "calql_singlebackup": ("calql", {"n_target_actions": 1}),  # its noise: in.noise.eps_target1
    "calql_entropybackup": ("calql", {"backup_entropy": True}),
    "calql_temp2_clip": ("calql", {"cql_temperature": 2.0, "clip_diff_min": 4.0, "clip_diff_max": 6.0}),
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from caliper.agents import Noise, build_agent
from caliper.types import Batch, Obs, ObsSpec

FIXTURE = np.load(Path(__file__).parents[1] / "fixtures" / "calql_fixture.npz", allow_pickle=False)
METRICS = json.loads(str(FIXTURE["metrics_json"]))
VARIANTS = {
    "calql": ("calql", {}),
    "cql": ("cql", {}),
    "calql_lagrange": ("calql", {"lagrange": True, "gap": 0.8}),
    "sac": ("sac", {}),
}


def tensor(key):
    return torch.from_numpy(FIXTURE[f"in.{key}"])


def linears(agent):
    """The policy's layers, without the ReLUs between."""
    return [layer for layer in agent.actor.layers if isinstance(layer, torch.nn.Linear)]


def official_agent(name, overrides):
    """The agent at the official starting weights. The keys given are what the fixture was made with."""
    config = {"actor_hidden": [16, 16], "critic_hidden": [16, 16], "n_target_actions": 4, "shift_pad": 0}
    if name != "sac":
        config |= {"n_actions": 4, "conservative_weight": 5.0}
    agent = build_agent(
        {"name": name, **config, **overrides}, {"name": "state"}, ObsSpec((), 0, 5), 3, "cpu", 0
    )
    with torch.no_grad():
        for i, layer in enumerate(linears(agent)):
            layer.weight.copy_(tensor(f"policy.Dense_{i}.kernel").T)
            layer.bias.copy_(tensor(f"policy.Dense_{i}.bias"))
            for critic, prefix in ((agent.critic, "qf"), (agent.target_critic, "target")):
                for member in (0, 1):
                    critic.weights[i][member] = tensor(f"{prefix}{member + 1}.Dense_{i}.kernel")
                    critic.biases[i][member, 0] = tensor(f"{prefix}{member + 1}.Dense_{i}.bias")
        agent.log_alpha.copy_(tensor("log_alpha"))
    return agent


def official_batch():
    def obs(key):
        return Obs(torch.zeros(8, 0, 3, 0, 0, dtype=torch.uint8), tensor(f"batch.{key}"))

    parts = [tensor(f"batch.{key}") for key in ("actions", "rewards", "dones", "mc_returns")]
    return Batch(obs("observations"), parts[0], parts[1], obs("next_observations"), parts[2], parts[3])


def official_noise(agent):
    """The injected draws; the single-action backup has its own."""
    target = tensor("noise.eps_target")
    if agent.config.n_target_actions == 1:
        target = tensor("noise.eps_target1")[:, None]
    return Noise(
        eps_pi=tensor("noise.eps_pi")[:, None],
        eps_target=target,
        eps_cur=tensor("noise.eps_cur"),
        eps_next=tensor("noise.eps_next"),
        rand=tensor("noise.rand"),
    )


def weights(agent):
    """Flat weights in the official order: each layer's kernel, its bias; the policy's two scalars last."""
    flat = {}
    for critic, prefix in ((agent.critic, "qf"), (agent.target_critic, "target_qf")):
        for member in (0, 1):
            pairs = zip(critic.weights, critic.biases, strict=True)
            flat[f"{prefix}{member + 1}"] = [p[member].flatten() for pair in pairs for p in pair]
    actor = [p.flatten() for layer in linears(agent) for p in (layer.weight.T, layer.bias)]
    flat["policy"] = [*actor, agent.actor.log_std_scale.view(1), agent.actor.log_std_offset.view(1)]
    flat["log_alpha"] = [agent.log_alpha.view(1)]
    if getattr(agent.config, "lagrange", False):
        flat["log_alpha_prime"] = [agent.log_lagrange.view(1)]
    return {name: torch.cat(parts).detach().numpy() for name, parts in flat.items()}


def expected_metrics(official, agent):
    """Our names for the official numbers; ours sum losses and average values over the two critics."""
    expected = {
        "critic/loss": official["qf1_loss"] + official["qf2_loss"],
        "critic/q_data": (official["q1_pred_mean"] + official["q2_pred_mean"]) / 2,
        "actor/loss": official["policy_loss"],
        "actor/grad_norm": official["policy_loss_gradient"],
        "actor/entropy": -official["log_pi_mean"],
        "temperature/loss": official["alpha_loss"],
        "temperature/alpha": official["alpha"],
    }
    if hasattr(agent, "calibrate"):
        expected |= {
            "critic/td_loss": official["cql/qf1_bellman_loss"] + official["cql/qf2_bellman_loss"],
            "critic/gap": (official["cql/cql_qf1_diff"] + official["cql/cql_qf2_diff"]) / 2,
            "critic/q_random": (official["cql/cql_q1_rand_mean"] + official["cql/cql_q2_rand_mean"]) / 2,
        }
    if getattr(agent.config, "lagrange", False):
        expected["critic/lagrange"] = official["cql/alpha_prime"]
        expected["critic/lagrange_loss"] = official["cql/alpha_prime_loss"]
    return expected


@pytest.mark.parametrize("variant", VARIANTS)
def test_three_steps_meet_the_official_numbers(variant):
    name, overrides = VARIANTS[variant]
    agent = official_agent(name, overrides)
    batch, noise = official_batch(), official_noise(agent)
    for step in ("s1", "s2", "s3"):
        info = agent.update(batch, noise)
        for key, value in expected_metrics(METRICS[variant][step], agent).items():
            assert float(info[key]) == pytest.approx(value, rel=1e-5, abs=1e-5), (step, key)
        if step != "s2":
            for key, value in weights(agent).items():
                np.testing.assert_allclose(
                    value, FIXTURE[f"{variant}.{step}.{key}"], rtol=0, atol=1e-5, err_msg=f"{step} {key}"
                )


def test_without_the_conservative_weight_cql_is_sac():
    """The fixture's sac is the official class with use_cql off; ours drops to it with weight zero."""
    sac, cql = official_agent("sac", {}), official_agent("cql", {"conservative_weight": 0.0})
    for _ in range(2):
        sac.update(official_batch(), official_noise(sac))
        cql.update(official_batch(), official_noise(cql))
    for key, value in weights(sac).items():
        np.testing.assert_allclose(weights(cql)[key], value, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "overrides",
    [
        {"importance_sampling": False},
        {"n_target_actions": 1},
        {"backup_entropy": True},
        {"cql_temperature": 2.0, "clip_diff_min": 4.0, "clip_diff_max": 6.0},
    ],
)
def test_the_other_variants_run_from_the_config_and_differ(overrides):
    plain, other = official_agent("calql", {}), official_agent("calql", overrides)
    a, b = (float(x.update(official_batch(), official_noise(x))["critic/loss"]) for x in (plain, other))
    assert np.isfinite(b) and abs(a - b) > 1e-3
