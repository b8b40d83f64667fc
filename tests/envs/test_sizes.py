"""`task.draw_size`: a cube whose size each episode draws, as robosuite's Lift does."""

from dataclasses import replace
from functools import cache

import h5py
import numpy as np
import pytest
import torch

from caliper.config.build import dataset_meta, installed
from caliper.config.compose import compose
from caliper.data.dataset import Dataset, Episode
from caliper.data.formats.robomimic import DatasetWriter, read_dataset
from caliper.envs.engines.sizes import FIELDS
from caliper.envs.render.raster import Rasteriser
from caliper.envs.render.trace import RayTracer
from caliper.envs.scene.scenes import build, mend_contacts
from caliper.envs.seeding import uniform
from caliper.envs.sim import SimEnv, task_scene
from caliper.envs.tasks import make_task
from caliper.envs.tasks.lift import table_scene
from caliper.errors import CaliperError
from caliper.importing.images import drawn
from tests.envs.conftest import CAMERAS, clean_expert, make_envs, random_actions, same_obs, start_like
from tests.oracle import joint_state, make_oracle


def sized_envs(num_envs, **kwargs):
    return make_envs("lift", num_envs, draw_size=True, **kwargs)


def half_sides(env):
    return env.engine.mocap_pos[:, 0]


def cube(half):
    from robosuite.models.objects import BoxObject

    return BoxObject(name="cube", size=half, rgba=(1, 0, 0, 1))


@cache
def oracle_of(half):
    """robosuite's Lift with a cube of given half sides."""
    oracle = make_oracle("lift", horizon=1 << 30, ignore_done=True)
    import robosuite.environments.manipulation.lift as module

    box = module.BoxObject
    module.BoxObject = lambda *args, size_min, size_max, **kwargs: box(*args, size=list(half), **kwargs)
    oracle.reset()  # builds the model anew
    module.BoxObject = box
    mend_contacts(oracle)
    oracle.hard_reset = False
    oracle.rng.bit_generator.state = np.random.default_rng(0).bit_generator.state
    oracle.reset()
    return oracle


def test_sizes_are_drawn_as_robosuites():
    task = make_task("lift", draw_size=True)
    poses = task.place(uniform(torch.arange(20000), task.draws, stream=2))
    half = poses["size of cube_main"][:, :3]
    assert half.min() >= 0.020 and half.max() < 0.022
    for side in half.T:
        quarters = torch.quantile(side, torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64))
        assert torch.allclose(quarters, torch.tensor([0.0205, 0.0210, 0.0215]).double(), atol=5e-5)
    assert torch.corrcoef(half.T).fill_diagonal_(0).abs().max() < 0.03
    cube_pose, fixed = poses["cube_main"], make_task("lift")
    elsewhere = fixed.place(uniform(torch.arange(20000), fixed.draws, stream=2))["cube_main"]
    assert torch.equal(cube_pose[:, [0, 1, 3, 4, 5, 6]], elsewhere[:, [0, 1, 3, 4, 5, 6]])
    assert torch.allclose(cube_pose[:, 2] - half[:, 2], torch.tensor(0.81).double())


@pytest.mark.parametrize("sim", ["batch", "warp"])
def test_mass_and_inertia_are_those_of_a_scene_compiled_with_the_size(sim):
    env = sized_envs(2, sim=sim, cameras=())
    for i in range(2):
        half = half_sides(env)[i].double().numpy()
        model = build(lambda half=half: table_scene("panda", [cube(half)])).model
        body, dof = model.body("cube_main").id, model.body("cube_main").dofadr[0]
        geoms = np.flatnonzero(model.geom_bodyid == body)
        assert len(env.engine._sizes._fields) == len(FIELDS) - (sim == "warp")
        for name, ours in env.engine._sizes._fields.items():
            at = geoms if name == "geom_size" else slice(dof, dof + 6) if name.startswith("dof") else body
            want, exact = torch.as_tensor(getattr(model, name)[at]), sim == "batch"
            torch.testing.assert_close(ours[i, at].double(), want, rtol=1e-9 if exact else 1e-5, atol=0)


def test_it_moves_and_is_judged_as_robosuites_of_the_same_size():
    """The script's grasp in our env; robosuite's gets its actions, blind."""
    env = sized_envs(1, first_seed=5, cameras=())
    theirs = oracle_of(tuple(half_sides(env)[0].tolist()))
    start_like(env, theirs)
    expert, solved = clean_expert(env), False
    for _ in range(env.horizon):
        action = expert.act()
        solved = bool(env.step(action).success[0])
        theirs.step(action[0].double().numpy())
        assert solved == bool(theirs._check_success())
        if solved:
            break
    assert solved
    qpos, _ = joint_state(theirs, env.engine.model)
    assert np.abs(env.final_state[0, 1 : 1 + len(qpos)].numpy() - qpos).max() < 2e-3


def test_warp_follows_batch():
    keys = {"controller": "osc_position", "control_freq": 10, "horizon": 40}
    exact, fast = sized_envs(2, **keys), sized_envs(2, sim="warp", **keys)
    assert torch.allclose(half_sides(exact).float(), half_sides(fast).float())
    expert, arm = clean_expert(exact), exact.engine.controller.index.qpos
    for _ in range(12):  # till the cube is held
        action = expert.act()
        a, b = exact.step(action), fast.step(action)
        assert torch.equal(a.success, b.success)
    assert (exact.engine.qpos[:, arm] - fast.engine.qpos[:, arm]).abs().max() < 1e-3
    assert (exact.object_pos - fast.object_pos).abs().max() < 1e-3
    assert (a.obs.pixels.float() - b.obs.pixels.float()).abs().mean() < 1


def test_an_episode_follows_from_its_seed_alone_and_its_states_give_its_images():
    many, one = sized_envs(3), sized_envs(1, first_seed=2)
    for action in random_actions(many, 4):
        a, b = many.step(action), one.step(action[2:])
    assert torch.equal(many.get_state()[2], one.get_state()[0])
    assert torch.equal(a.obs.pixels[2], b.obs.pixels[0])
    states, live = many.get_state(), many.observe()
    other = sized_envs(3, first_seed=50)
    assert not same_obs(other.observe(), live)
    other.set_state(states)
    assert torch.equal(other.observe().pixels, live.pixels)


def test_images_show_the_size():
    """In the tracer's images the size is MuJoCo Warp's own; the rasteriser's have the same pixels."""
    env = sized_envs(2)
    want, got = (kind(env.engine, CAMERAS, 96).render().float() for kind in (RayTracer, Rasteriser))
    assert (want - got).abs().mean() < 0.2
    state = env.get_state()
    state[1] = state[0]
    env.set_state(state)
    same = env.render(("robot0_eye_in_hand",), 96)
    assert torch.equal(same[0], same[1])
    env.engine.mocap_pos[1, 0] = torch.tensor([0.020, 0.022, 0.020], dtype=torch.float64)
    env.engine.pose()
    differs = env.render(("robot0_eye_in_hand",), 96)
    assert torch.equal(differs[0], same[0]) and not torch.equal(differs[1], same[1])


def test_a_dataset_holds_the_sizes(tmp_path):
    """A file says that its sizes were drawn; one whose were not is what it was before there was a choice."""
    env = sized_envs(2, cameras=("agentview",), size=48)
    live, states = env.observe().pixels, env.get_state().numpy()
    for draws in (True, False):
        meta = replace(dataset_meta(compose(["task=lift", "task.draw_size=true"])), draw_size=draws)
        facts = {"terminated": False, "success": False, "seed": 0, "noise": 0.0}
        actions, rewards = np.zeros((1, meta.action_dim), np.float32), np.zeros(1, np.float32)
        with DatasetWriter(tmp_path / f"{draws}.hdf5", meta) as writer:
            writer.add(Episode(states[:1], states[1], actions, rewards, **facts))
        read = read_dataset(tmp_path / f"{draws}.hdf5")
        assert read.meta == meta
        with h5py.File(tmp_path / f"{draws}.hdf5") as file:
            assert ("draw_size" in file["data"].attrs) == draws
    rows = np.vstack([read.episodes[0].states, read.episodes[0].final_state])
    frames = np.concatenate(list(drawn(env.engine.model, rows, ("agentview",), 48, antialias=1)))
    assert np.array_equal(frames[:, 0], live[:, 0].permute(0, 2, 3, 1).numpy())


def test_a_task_without_a_size_says_so():
    with pytest.raises(CaliperError, match=r"task 'stack' draws no sizes; .* \(true is for lift\)"):
        make_task("stack", draw_size=True)


def test_the_fixed_scene_stays_and_data_of_one_is_refused_by_the_other():
    fixed, sized = task_scene("lift"), task_scene("lift", draw_size=True)
    assert fixed.hash != sized.hash and sized.state_dim == fixed.state_dim + 7
    metas = [dataset_meta(compose(["task=lift", f"task.draw_size={word}"])) for word in ("false", "true")]
    assert [meta.draw_size for meta in metas] == [False, True]
    for meta, other in (metas, metas[::-1]):
        assert installed(meta)[0].scene_hash == meta.scene_hash
        with pytest.raises(CaliperError, match="draw_size is"):
            Dataset(meta=meta, episodes=[]).check(other)


def test_every_robot_can_be_in_the_scene():
    env = SimEnv("lift", 1, cameras=(), threads=1, robot="sawyer", draw_size=True)
    assert half_sides(env).min() >= 0.02 and half_sides(env).max() < 0.022
