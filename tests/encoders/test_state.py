"""The encoder of numbers: unchanged, or normalised by the moments of recorded frames."""

import torch

from caliper.agents import build_agent
from caliper.encoders import State, build_encoder
from caliper.types import Obs, ObsSpec

FRAMES = torch.tensor([[1.0, 5.0], [3.0, 5.0], [1.0, 5.0], [3.0, 5.0]])  # means 2 and 5, deviations 1 and 0


def seen(*rows):
    state = torch.tensor(rows)
    return Obs(torch.zeros(len(state), 0, 3, 1, 1, dtype=torch.uint8), state)


def test_the_numbers_are_unchanged_unless_it_is_asked():
    encoder = build_encoder({"name": "state"}, ObsSpec((), 1, 2))
    obs = seen([4.0, 5.0])
    assert torch.equal(encoder(obs), obs.proprio)
    assert not encoder.state_dict()  # so that older checkpoints fit


def test_each_number_less_its_mean_over_its_deviation():
    encoder = build_encoder({"name": "state", "normalize": True}, ObsSpec((), 1, 2))
    encoder.fit(FRAMES)
    # (4 - 2) / (1 + .001); a number that never varied, (5 - 5) / .001, and a hundredth above, .01 / .001.
    expected = torch.tensor([[2 / 1.001, 0.0], [-2 / 1.001, 10.0]])
    torch.testing.assert_close(encoder(seen([4.0, 5.0], [0.0, 5.01])), expected, rtol=1e-4, atol=1e-4)


def test_each_frame_of_a_stack_has_the_same_moments():
    encoder = build_encoder({"name": "state", "normalize": True}, ObsSpec((), 1, 2, stack=2))
    encoder.fit(FRAMES)
    got = encoder(seen([2.0, 5.0, 3.001, 5.0]))
    torch.testing.assert_close(got, torch.tensor([[0.0, 0.0, 1.0, 0.0]]), rtol=1e-4, atol=1e-4)


def test_moments_are_saved_with_the_weights_and_never_learned():
    spec, cfg = ObsSpec((), 1, 2), {"name": "state", "normalize": True}
    agent = build_agent({"name": "td3bc"}, cfg, spec, 1, "cpu", 0)
    encoders = [part for part in agent.modules() if isinstance(part, State)]
    assert len(encoders) >= 4  # actor, critic, and a slow copy of each
    for encoder in encoders:
        encoder.fit(FRAMES)
    other = build_agent({"name": "td3bc"}, cfg, spec, 1, "cpu", 1)
    other.load_state_dict(agent.state_dict())
    obs = seen([4.0, 5.0])
    assert torch.equal(agent.act(obs, deterministic=True), other.act(obs, deterministic=True))
    for encoder in (part for part in other.modules() if isinstance(part, State)):
        assert torch.equal(encoder.mean, torch.tensor([2.0, 5.0]))
        assert not list(encoder.parameters())
