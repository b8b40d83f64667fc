"""Episodes that each look in a way of their own while they run."""

import pytest
import torch

from caliper.envs.scene.appearance import AS_IT_IS, NAMED_APPEARANCES, AppearanceRanges, Appearances
from caliper.envs.sim import SimEnv, task_scene
from caliper.errors import CaliperError
from tests.data.conftest import CountingEnv
from tests.envs.conftest import random_actions

RANGES = AppearanceRanges(0.03, 0.1, 0.4, 0.3)


def make(n, sim="batch"):
    return SimEnv("lift", n, sim, ("agentview",), 24, horizon=3, threads=1)


@pytest.mark.parametrize("sim", ["batch", pytest.param("warp", marks=pytest.mark.slow)])
def test_an_episodes_look_follows_from_its_seed(sim):
    """The same in any env, and the same as `set_appearance` makes it from the seed; other episodes differ."""
    many, one = make(3, sim), make(1, sim)
    for env in (many, one):
        env.vary(RANGES)
    many.reset(seeds=torch.tensor([5, 6, 7]))
    one.reset(seeds=torch.tensor([6]))
    plain = make(3, sim)
    for action in random_actions(many, 4):  # past the end of the first episodes
        step, alone = many.step(action), one.step(action[1:2])
        assert torch.equal(step.obs.pixels[1], alone.obs.pixels[0])
        assert torch.equal(step.final_obs.pixels[1], alone.final_obs.pixels[0])
        plain.set_state(many.get_state())
        assert not torch.equal(plain.observe().pixels, step.obs.pixels)
        plain.set_appearance(many.seeds, RANGES)
        assert torch.equal(plain.observe().pixels, step.obs.pixels)
        plain.set_appearance(None)
    assert (many.seeds >= 1 << 20).all()  # new episodes have begun


def test_appearances_do_not_touch_the_physics_and_end():
    env, plain = make(2), make(2)
    seeds = torch.tensor([1, 2])
    plain.reset(seeds=seeds)
    env.vary(RANGES)
    env.reset(seeds=seeds)
    for action in random_actions(env, 4):
        assert torch.equal(env.step(action).obs.proprio, plain.step(action).obs.proprio)
    assert torch.equal(env.get_state(), plain.get_state())
    saved, before = env.state_dict(), env.observe().pixels
    env.step(random_actions(env, 1)[0])
    env.load_state_dict(saved)
    assert torch.equal(env.observe().pixels, before)
    env.vary(AS_IT_IS)
    assert torch.equal(env.observe().pixels, plain.observe().pixels)


def test_half_the_light_is_half_as_bright():
    env = make(1)
    bright = env.observe().pixels.float()
    env.vary(NAMED_APPEARANCES["dim_light"])
    dim = env.observe().pixels.float()
    assert (dim - bright / 2).abs().max() <= 1  # rounding
    drawn = Appearances(task_scene("lift").model, torch.device("cpu")).draw(
        AppearanceRanges(light=0.25, dim=0.5), torch.arange(200)
    )
    for light in (drawn.headlight, drawn.lamps):
        assert 0.25 <= light.min() < 0.3 and 0.7 < light.max() <= 0.75


def test_envs_without_images_refuse():
    env = CountingEnv([2])
    env.vary(AS_IT_IS)
    with pytest.raises(CaliperError, match="no images"):
        env.vary(RANGES)
