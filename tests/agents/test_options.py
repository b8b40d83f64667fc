"""The options that agents share, on every agent that has them; what is off changes nothing."""

from typing import Any

import pytest
import torch

from caliper.agents import AGENTS
from tests.agents.conftest import (
    equal,
    keys_of,
    make,
    noise_for,
    random_batch,
    random_obs,
    snapshot,
    update_all,
)

CRITICS = [name for name, (agent, _) in AGENTS.items() if agent.has_critic]
WAITING = [name for name in AGENTS if "actor_every" in keys_of(name)]
OPTIONS: list[dict[str, Any]] = [
    {"n_critics": 5},
    {"layer_norm": True},
    {"encoder_per_critic": True},
    {"shift_pad": 0},
    {"precision": "bfloat16"},
    {"autotune_entropy": False, "init_temperature": 0.0},
    {"bc_weight": 0.1},
    {"bc_weight": 0.1, "bc_better_only": True},
    {"mc_weight": 0.5},
    {"actor_tau": 0.01},
    {"best_of": 4},
    {"gripper_switch": True},
    {"chunk": 2},
]
CASES = [(name, keys) for keys in OPTIONS for name in AGENTS if keys.keys() <= keys_of(name)]


@pytest.mark.parametrize(("name", "keys"), CASES, ids=lambda x: x if isinstance(x, str) else next(iter(x)))
def test_options(name, keys):
    agent = make(name, **keys)
    before = snapshot(agent)
    for _ in range(2):
        info = agent.update(random_batch(actions=agent.action_dim))
    assert agent.act(random_obs(3), deterministic=False).shape == (3, agent.action_dim)
    assert all(torch.isfinite(v) for v in info.values())
    first = [key for key in before if key in ("critic.weights.0", "actor.layers.0.weight")]
    assert first and not any(torch.equal(before[key], agent.state_dict()[key]) for key in first)


@pytest.mark.parametrize("name", CRITICS)
def test_bfloat16_gives_nearly_the_same_gradients(name):
    """Casts cached where gradients are off must not cut the graph where they are on."""
    full, half = (update_all(make(name, precision=precision)) for precision in ("float32", "bfloat16"))
    for key in full:
        if key.endswith("/grad_norm") or key == "critic/loss":
            assert float(half[key]) == pytest.approx(float(full[key]), rel=0.02), key


@pytest.mark.parametrize("name", CRITICS)
def test_deviations_that_are_off_change_no_bit(name):
    published = make(name)
    off = {
        "bc_weight": 0.0,
        "bc_weight_online": 0.0,
        "bc_fade_steps": 9,
        "bc_lr": 1.0,
        "bc_better_only": True,
        "mc_weight": 0.0,
        "best_of": 4,
    }
    if getattr(published.config, "conservative_weight_online", 0.0) is None:
        off["conservative_weight_online"] = published.config.conservative_weight
    other = make(name, **{key: value for key, value in off.items() if key in keys_of(name)})
    for i in range(3):
        if i == 1:
            published.go_online()
            other.go_online()
        published.update(random_batch(seed=i))
        other.update(random_batch(seed=i))
    assert equal(published.state_dict(), other.state_dict())


@pytest.mark.parametrize("name", WAITING)
def test_an_actor_that_waits_is_asked_at_s_for_the_conservative_term_alone(name):
    agent, batch, asked = make(name, actor_every=2), random_batch(), []

    def note(_, args, features):
        if args[0].proprio is batch.obs.proprio:
            asked.append(features.requires_grad)

    agent.go_online()  # before the switch WSRL's actor never waits
    agent.actor.encoder.register_forward_hook(note)
    agent.update(batch)
    conservative = "conservative_weight" in keys_of(name) and agent.conservative_weight
    assert asked == ([False] if conservative else [])
    asked.clear()
    agent.update(batch)
    assert asked == [True]


@pytest.mark.parametrize("name", WAITING)
def test_critics_learn_the_same_while_the_actor_waits(name):
    batch, both = random_batch(), [make(name, actor_every=k) for k in (1, 2)]
    for agent in both:
        agent.go_online()
    noise = noise_for(both[0], batch)
    always, waiting = (agent.update(batch, noise) for agent in both)
    assert all(torch.equal(value, always[key]) for key, value in waiting.items() if key.startswith("critic/"))
    assert equal(both[0].critic.state_dict(), both[1].critic.state_dict())
