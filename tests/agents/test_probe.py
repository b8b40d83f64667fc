import pytest
import torch

from caliper.agents.probe import critic_features, probe
from caliper.encoders import Encoder
from tests.agents.conftest import linear_agent, linear_batch, make, random_obs


def test_probe_by_hand():
    # at s = 2 the smaller Q is 2 a: the largest value is twice the largest action, the mean about 0
    agent, obs = linear_agent(), linear_batch(2.0, 0.0).obs
    g = torch.Generator().manual_seed(0)
    action, uniform = torch.tanh(torch.randn(64, generator=g)), 2 * torch.rand(64, generator=g) - 1
    seen = {name: value.item() for name, value in probe(agent, obs, agent.decide(obs, True)).items()}
    assert seen == pytest.approx(
        {
            "q": 0.0,  # the greedy action
            "q_best": 2 * action.max().item(),
            "q_random": 2 * uniform.mean().item(),
            "q_random_best": 2 * uniform.max().item(),
            "width": action.std().item(),
        },
        rel=1e-5,
    )


@pytest.mark.parametrize("per_critic", [False, True])
def test_probing_changes_nothing(per_critic):
    agent, obs = make("calql", encoder_per_critic=per_critic), random_obs(5)
    before = agent.generator.get_state()
    first, second = (probe(agent, obs, agent.decide(obs, True)) for _ in range(2))
    assert all(value.shape == (5,) and torch.equal(value, second[name]) for name, value in first.items())
    assert critic_features(agent, obs).shape == (5, agent.critic.encoder.dim)
    assert torch.equal(before, agent.generator.get_state())
    with pytest.raises(TypeError, match="BC has no critic"):
        probe(make("bc"), obs, make("bc").decide(obs, True))


@pytest.mark.parametrize(("name", "keys"), [("calql", {}), ("calql", {"best_of": 3}), ("qtopt", {})])
def test_deciding_and_probing_encode_an_image_once_per_network(name, keys):
    agent, obs, seen = make(name, **keys), random_obs(5), []
    for key, module in agent.named_modules():
        if isinstance(module, Encoder):
            module.register_forward_hook(lambda *_, key=key: seen.append(key))
    decision = agent.decide(obs, deterministic=True)
    q = probe(agent, obs, decision)["q"]
    assert sorted(seen) == [f"{part}.encoder" for part in ("actor", "critic") if hasattr(agent, part)]
    assert torch.equal(decision.action, agent.act(obs, deterministic=True))
    assert torch.equal(q, agent.q_values(obs, decision.action))
