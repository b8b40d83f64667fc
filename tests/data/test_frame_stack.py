"""Stacks of frames, put together by hand: at an episode's start, across the ring's end, in chunks."""

from dataclasses import replace

import torch

from caliper.data.buffer import ReplayBuffer
from caliper.data.open_episodes import OpenEpisodes
from caliper.data.returns import RewardConfig
from caliper.envs.observation.stack import FrameStack
from caliper.types import Obs, ObsSpec
from tests.data.conftest import SPEC, CountingEnv, add, frames

STACKED = replace(SPEC, stack=3)


def make_buffer(capacity=100, chunk=1):
    return ReplayBuffer(capacity, STACKED, 2, RewardConfig(gamma=0.97), chunk=chunk)


def stacks(obs):
    """The numbers of the frames in each observation, (b, 3) as tuples; pixels and proprio agree on them."""
    b = len(obs)
    pixels, proprio = obs.pixels.view(b, 2, 3, 3, 4, 4).long(), obs.proprio.view(b, 3, 3)
    shown = pixels[:, 0, :, 2, 3, 3] + 256 * pixels[:, 1, :, 0, 0, 0]  # (b, k)
    assert torch.equal(shown, proprio[:, :, 1].long())
    return list(map(tuple, shown.tolist()))


def drawn(buffer, count=400):
    batch = buffer.sample(count, torch.Generator().manual_seed(0))
    return set(zip(stacks(batch.obs), stacks(batch.next_obs), strict=True))


def test_an_episodes_first_frame_stands_for_what_is_before_it():
    buffer = make_buffer()
    add(buffer, 100, 4)
    add(buffer, 300, 1, success=True)
    assert drawn(buffer) == {
        ((100, 100, 100), (100, 100, 101)),
        ((100, 100, 101), (100, 101, 102)),
        ((100, 101, 102), (101, 102, 103)),
        ((101, 102, 103), (102, 103, 104)),
        ((300, 300, 300), (300, 300, 301)),
    }


def test_stacks_go_across_the_rings_end():
    buffer = make_buffer(capacity=9)
    add(buffer, 100, 3)  # slots 0 to 3, dropped below
    add(buffer, 200, 3)  # slots 4 to 7
    add(buffer, 300, 3)  # slot 8, then 0 to 2
    assert buffer.num_episodes == 2
    assert drawn(buffer) == {
        *(((200, 200, 200), (200, 200, 201)), ((200, 200, 201), (200, 201, 202))),
        ((200, 201, 202), (201, 202, 203)),
        *(((300, 300, 300), (300, 300, 301)), ((300, 300, 301), (300, 301, 302))),
        ((300, 301, 302), (301, 302, 303)),
    }


def test_chunks_end_with_a_stack_of_their_last_frames():
    buffer = make_buffer(chunk=3)
    add(buffer, 100, 4)
    assert drawn(buffer) == {((100, 100, 100), (101, 102, 103)), ((100, 100, 101), (102, 103, 104))}


def test_a_loaded_buffer_draws_the_same():
    buffer, other = make_buffer(capacity=14), make_buffer(capacity=20)
    for first in (100, 200, 300):
        add(buffer, first, 4, success=first == 200)
    add(other, 900, 6)
    state = buffer.state_dict()
    assert "age" not in state and state["pixels"].shape == (10, 2, 3, 4, 4)  # single frames
    other.load_state_dict(state)
    assert drawn(other) == drawn(buffer) and len(drawn(other)) == 8


def test_each_frame_is_stored_once():
    single = ReplayBuffer.estimate(50, SPEC, 2)
    assert make_buffer(50).nbytes == single + 50 * 8  # how many frames of its episode are before it
    assert make_buffer(50)._frames.columns["pixels"].shape == (50, 2, 3, 4, 4)


def test_live_stacks_are_those_of_the_buffer():
    """Envs that end at different times: what the policy saw is what is drawn later."""
    env = FrameStack(CountingEnv([2, 5, 9], horizon=5), 3)  # success, success at the limit, time-out
    buffer, episodes = make_buffer(), OpenEpisodes(3, 5, env.spec, 2)
    obs, seen = env.observe(), set()
    assert stacks(obs) == [(1000,) * 3, (2000,) * 3, (3000,) * 3]
    for _ in range(10):
        step = env.step(torch.zeros(3, 2))
        seen |= set(zip(stacks(obs), stacks(step.final_obs), strict=True))
        episodes.push(obs, torch.zeros(3, 2), step, buffer)
        obs = step.obs
    assert ((1000, 1000, 1001), (1000, 1001, 1002)) in seen  # the step that succeeds, and
    assert ((1100, 1100, 1100), (1100, 1100, 1101)) in seen  # the first of the next episode
    assert drawn(buffer, 2000) == seen


def test_a_stack_goes_on_where_its_state_was_taken():
    env = FrameStack(CountingEnv([9, 9]), 3)
    env.env.state_dict = lambda: {"shown": env.env.shown.clone()}
    env.env.load_state_dict = lambda state: env.env.shown.copy_(state["shown"])
    for _ in range(2):
        env.step(torch.zeros(2, 2))
    state, before = env.state_dict(), stacks(env.observe())
    assert before == [(1000, 1001, 1002), (2000, 2001, 2002)]
    env.step(torch.zeros(2, 2))
    env.load_state_dict(state)
    assert stacks(env.observe()) == before
    env.set_state(torch.full((1, 3), 4444.0).double())
    assert stacks(env.observe()) == [(4444,) * 3, (2002,) * 3]  # a state has no history
    assert torch.equal(env.frame().proprio[:, 0], torch.tensor([4444.0, 2002.0]))


def test_only_the_reset_envs_forget():
    env = FrameStack(CountingEnv([9, 9]), 3)
    env.step(torch.zeros(2, 2))
    env.env.reset = lambda mask, seeds: frames(torch.tensor([7000, 2001]))
    assert stacks(env.reset(torch.tensor([True, False]))) == [(7000,) * 3, (2000, 2000, 2001)]


def test_a_buffer_holds_images_of_several_sizes_and_kinds():
    spec = ObsSpec(("a", "b", "c"), ((4, 6), (3, 3), (4, 6)), 2, depth=True, instances=5)
    shapes = {
        "pixels": ((2, 3, 4, 6), torch.uint8),
        "depth": ((2, 1, 4, 6), torch.float16),
        "segmentation": ((2, 1, 4, 6), torch.uint8),
        "pixels_3x3": ((1, 3, 3, 3), torch.uint8),
        "depth_3x3": ((1, 1, 3, 3), torch.float16),
        "segmentation_3x3": ((1, 1, 3, 3), torch.uint8),
    }
    assert {name: (plane.shape, plane.dtype) for name, plane in spec.planes.items()} == shapes
    assert spec.planes["pixels"].cameras == (0, 2) and spec.planes["depth_3x3"].cameras == (1,)
    frame = 2 * 24 * (3 + 2 + 1) + 9 * (3 + 2 + 1)
    assert spec.image_bytes == frame
    transition = 2 * 8 + 2 * 4 + 3 * 4
    assert ReplayBuffer.estimate(1, spec, 2) == frame + 2 * 4 + transition
    buffer = ReplayBuffer(8, spec, 2, RewardConfig(gamma=0.97))
    number = torch.arange(4)
    seen = {name: number.view(4, 1, 1, 1, 1).expand(4, *s).to(d) for name, (s, d) in shapes.items()}
    obs = Obs.of({**seen, "proprio": number[:, None].expand(4, 2).float()})
    buffer.add_episode(obs, torch.zeros(3, 2), torch.zeros(3), False)
    batch = buffer.sample(50, torch.Generator().manual_seed(0))
    first = batch.obs.proprio[:, 0]
    for name, (shape, dtype) in shapes.items():
        for seen_obs, at in ((batch.obs, first), (batch.next_obs, first + 1)):
            images = seen_obs.images[name]
            assert images.shape == (50, *shape) and images.dtype == dtype
            assert (images.double() == at.view(-1, 1, 1, 1, 1)).all()


def test_one_size_by_two_words_is_one_spec():
    assert ObsSpec(("a", "b"), ((64, 64), (64, 64)), 3) == ObsSpec(("a", "b"), 64, 3)
    assert ObsSpec(("a",), ((64, 32),), 3).sizes == ((64, 32),)
