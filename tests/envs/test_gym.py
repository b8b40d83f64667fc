"""The Gymnasium adapter, by the conventions of Gymnasium's own vector environments."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

gymnasium = pytest.importorskip("gymnasium")

from gymnasium.utils.env_checker import check_env  # noqa: E402  # after the skip

import caliper  # noqa: E402
from caliper.envs.observation.names import ROBOSUITE, named  # noqa: E402
from caliper.envs.tasks import TASKS  # noqa: E402
from caliper.errors import CaliperError  # noqa: E402
from caliper.registration import announce, gymnasium_name  # noqa: E402
from tests.envs.conftest import make_envs  # noqa: E402
from tests.oracle import joint_state  # noqa: E402

SOURCE = Path(__file__).resolve().parents[2] / "src"
SMALL = {"size": 16, "threads": 1, "cameras": ["agentview"]}


def make(n=2, **kwargs):
    from caliper.envs.gym import GymVectorEnv

    return GymVectorEnv(make_envs("lift", n, **kwargs))


def same(a, b):
    return all(np.array_equal(a[name], b[name]) for name in a | b)


def test_spaces_hold_what_comes_out():
    env = make()
    assert isinstance(env, gymnasium.vector.VectorEnv)
    assert env.metadata["autoreset_mode"] is gymnasium.vector.AutoresetMode.SAME_STEP
    assert env.observation_space == gymnasium.vector.utils.batch_space(env.single_observation_space, 2)
    env.action_space.seed(0)
    obs, info = env.reset(seed=0)
    assert obs in env.observation_space and info == {}
    obs, reward, terminated, truncated, infos = env.step(env.action_space.sample())
    assert obs in env.observation_space
    assert reward.dtype == np.float64 and reward.shape == (2,)
    for flag in (terminated, truncated, infos["success"], infos["_success"]):
        assert flag.dtype == np.bool_ and flag.shape == (2,)
    assert "final_obs" not in infos


def test_a_seed_fixes_this_episode_and_the_next():
    env, runs = make(horizon=2), []
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(3)]
    for _ in range(2):
        seen = [env.reset(seed=3)[0]]
        seen += [env.step(action)[0] for action in actions]  # the second step begins a new episode
        runs.append(seen)
    assert all(same(a, b) for a, b in zip(*runs, strict=True))
    assert not same(runs[0][0], runs[0][2])
    alone, _ = make(n=1).reset(seed=4)
    assert np.array_equal(alone["proprio"][0], runs[0][0]["proprio"][1])


def test_the_last_observation_is_kept_where_an_episode_ends():
    short, long = make(horizon=2), make()
    short.action_space.seed(0)
    actions = [short.action_space.sample() for _ in range(2)]
    for env in (short, long):
        env.reset(seed=5)
        env.step(actions[0])
    want, *_ = long.step(actions[1])
    obs, _, terminated, truncated, infos = short.step(actions[1])
    assert truncated.all() and not terminated.any()
    assert infos["_final_obs"].all() and infos["_final_info"].all()
    assert infos["final_obs"].dtype == object and infos["final_obs"].shape == (2,)
    for i in range(2):
        assert infos["final_obs"][i] in short.single_observation_space
        assert same(infos["final_obs"][i], {name: want[name][i] for name in want})
    assert not same(obs, want)
    assert infos["final_info"]["_success"].all() and not infos["final_info"]["success"].any()


def test_observations_are_not_overwritten():
    env = make()
    first, _ = env.reset(seed=0)
    kept = {name: value.copy() for name, value in first.items()}
    env.step(np.ones((2, 7), np.float32))
    assert same(first, kept)


def test_a_mask_resets_some_envs():
    env = make()
    env.reset(seed=0)
    before, *_ = env.step(np.ones((2, 7), np.float32))
    after, _ = env.reset(seed=9, options={"reset_mask": np.array([True, False])})
    assert np.array_equal(after["pixels"][1], before["pixels"][1])
    assert not np.array_equal(after["pixels"][0], before["pixels"][0])


def test_gymnasiums_wrappers_take_it():
    env = gymnasium.wrappers.vector.RecordEpisodeStatistics(make(horizon=2))
    env.reset(seed=0)
    for _ in range(2):
        *_, infos = env.step(np.zeros((2, 7), np.float32))
    assert infos["episode"]["l"].tolist() == [2, 2]


@pytest.mark.parametrize("first", ["caliper, gymnasium", "gymnasium, caliper"])
def test_importing_caliper_registers_every_task_in_either_order_without_a_simulator(first):
    code = (
        f"import {first}, sys; print(*sorted(i for i in gymnasium.registry if i.startswith('caliper/')));"
        "print({'torch', 'warp', 'mujoco'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    ids = sorted(f"caliper/{gymnasium_name(task)}-v0" for task in TASKS)
    assert done.stdout.splitlines() == [" ".join(ids), "set()"], done.stderr
    assert "caliper/PickPlaceCan-v0" in ids and "caliper/Lift-v0" in ids


def test_importing_caliper_does_not_import_gymnasium():
    code = "import caliper, sys; print('gymnasium' in sys.modules)"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, cwd=SOURCE)
    assert done.stdout.split() == ["False"], done.stderr


def test_announcing_twice_changes_nothing():
    announce()
    before, finders = dict(gymnasium.registry), list(sys.meta_path)
    announce()
    assert gymnasium.registry == before and sys.meta_path == finders


def test_an_env_is_made_as_the_task_is_trained():
    env = gymnasium.make("caliper/PickPlaceCan-v0", obs="state", threads=1).unwrapped
    assert env.action_space.shape == (7,) and env.metadata["render_fps"] == 20
    assert env._sim.task.name == "pick_place_can" and env._sim.horizon == 200
    assert gymnasium.spec("caliper/Lift-v0").kwargs["horizon"] == 40


@pytest.mark.filterwarnings("ignore:.*-?infinity.*")  # as of every environment of MuJoCo: nothing bounds them
@pytest.mark.parametrize(
    "settings",
    [
        {"names": "lerobot", "obs": "state"},
        pytest.param({"names": "robomimic"}, marks=pytest.mark.slow),
        pytest.param({}, marks=pytest.mark.slow),
    ],
)
def test_gymnasiums_checker_finds_nothing(settings):
    check_env(gymnasium.make("caliper/Lift-v0", **SMALL, render_size=16, **settings).unwrapped)


def test_one_env_is_the_vector_envs_first():
    single = gymnasium.make("caliper/Lift-v0", **SMALL, horizon=3)
    many = gymnasium.make_vec("caliper/Lift-v0", num_envs=2, **SMALL, horizon=3)
    assert many.metadata["autoreset_mode"] is gymnasium.vector.AutoresetMode.SAME_STEP
    assert many.spec.id == "caliper/Lift-v0" and many.unwrapped.env.num_envs == 2
    ours, theirs = single.reset(seed=4)[0], many.reset(seed=4)[0]
    many.action_space.seed(0)
    for t in range(1, 4):
        assert same(ours, {name: value[0] for name, value in theirs.items()})
        action = many.action_space.sample()
        ours, reward, terminated, truncated, info = single.step(action[0])
        theirs, *_, infos = many.step(action)
        assert (type(reward), type(terminated), truncated) == (float, bool, t == 3)
        assert info == {"success": False}
    assert same(ours, infos["final_obs"][0])  # the end of the episode, not the start of the next
    ours, _ = single.reset()
    assert same(ours, {name: value[0] for name, value in theirs.items()})


def test_an_image_of_the_last_step_shows_where_it_led():
    view = {"render_mode": "rgb_array", "render_camera": "agentview", "render_size": 16}
    env = gymnasium.make("caliper/Lift-v0", **SMALL | view, horizon=2).unwrapped
    longer = gymnasium.make("caliper/Lift-v0", **SMALL | view, horizon=3).unwrapped
    for one in (env, longer):
        one.reset(seed=0)
        for _ in range(2):
            one.step(np.array([0, 0, 1, 0], np.float32))
    frame = env.render()
    assert frame.shape == (16, 16, 3) and frame.dtype == np.uint8
    assert np.array_equal(frame, longer.render())
    env.reset()
    assert not np.array_equal(frame, env.render())
    many = gymnasium.make_vec("caliper/Lift-v0", num_envs=2, **SMALL | view)
    many.reset(seed=0)
    first, second = many.render()
    assert first.shape == (16, 16, 3) and not np.array_equal(first, second)


def test_without_a_seed_episodes_differ():
    starts = [gymnasium.make("caliper/Lift-v0", obs="state", threads=1).reset()[0] for _ in range(2)]
    assert not same(*starts)
    starts = [gymnasium.make("caliper/Lift-v0", obs="state", threads=1, seed=1).reset()[0] for _ in range(2)]
    assert same(*starts)


def test_what_cannot_be_done_is_one_sentence():
    env = gymnasium.make("caliper/Lift-v0", **SMALL).unwrapped
    many = gymnasium.make_vec("caliper/Lift-v0", num_envs=2, **SMALL)
    still = np.zeros(4, np.float32)
    for one, action in ((env, still), (many, np.stack([still] * 2))):
        with pytest.raises(CaliperError, match=r"no episode is running; call reset\(\) first"):
            one.step(action)
        one.reset()
        for bad in (np.nan, np.inf):
            with pytest.raises(CaliperError, match="the action holds NaN or infinity"):
                one.step(action + bad)
        with pytest.raises(CaliperError, match=r"action has shape .*numbers of shape"):
            one.step(action[..., :3])
        one.step(action)
    shown = {"render_mode": "rgb_array", "render_size": 16}
    for one in (
        gymnasium.make("caliper/Lift-v0", obs="state", **shown).unwrapped,
        gymnasium.make_vec("caliper/Lift-v0", num_envs=2, obs="state", **shown),
    ):
        with pytest.raises(CaliperError, match=r"render: no episode is running; call reset\(\) first"):
            one.render()
    one.reset(options={"reset_mask": np.array([True, False])})
    with pytest.raises(CaliperError, match=r"no episode is running; call reset\(\) first"):
        one.step(np.stack([still] * 2))
    with pytest.raises(gymnasium.error.ResetNeeded, match="before calling env"):  # Gymnasium's own
        gymnasium.make("caliper/Lift-v0", obs="state").step(still)
    with pytest.raises(CaliperError, match=r"NaN or infinity \(env 1\)"):
        many.step(np.stack([still, still * np.nan]))
    from caliper.envs.gym import GymEnv

    make = {
        "names='d4rl' are unknown; choose one of: caliper, robomimic, lerobot": {"names": "d4rl"},
        "has no setting 'camera'; it knows obs, cameras": {"camera": "front"},
        "have no word for proprio 'standard'": {"names": "lerobot", "proprio": ["standard"]},
        "have no word for depth and segmentation": {"names": "lerobot", "depth": True},
        "frame_stack=0 must be": {"frame_stack": 0},
        "robot 'r2d2' is unknown": {"robot": "r2d2"},
        "agentview has the size wide": {"cameras": {"agentview": "wide"}},
        "obs='image' is unknown": {"obs": "image"},
        "render_mode='human' does not exist": {"render_mode": "human"},
    }
    for sentence, settings in make.items():
        with pytest.raises(CaliperError, match=sentence):
            GymEnv("lift", **SMALL | settings)


def test_robomimics_names_hold_what_robosuite_observes(oracle):
    theirs = oracle("lift")
    env = make_envs("lift", 1, controller="osc_pose", cameras=("agentview",), proprio=ROBOSUITE)
    rng = np.random.default_rng(0)
    for _ in range(20):
        theirs.step(rng.uniform(-1, 1, 7))
        theirs.sim.forward()  # or its positions lag one substep behind its joints
        seen = theirs._get_observations(force_update=True)
        state = np.concatenate([[0], *joint_state(theirs, env.engine.model)])
        env.set_state(torch.tensor(state)[None])
        ours = named("robomimic", env.spec, env.robot_parts, env.observe())
        for name in ROBOSUITE:
            np.testing.assert_allclose(ours[name][0], seen[name], atol=1e-6)
    assert ours["agentview_image"].shape == (1, 32, 32, 3)


def test_lerobots_names_hold_the_same():
    env = make_envs("lift", 2, privileged=True, proprio=ROBOSUITE)
    obs = env.observe()
    ours = named("lerobot", env.spec, env.robot_parts, obs)
    theirs = named("robomimic", env.spec, env.robot_parts, obs)
    assert np.array_equal(ours["agent_pos"], np.concatenate([theirs[name] for name in ROBOSUITE], axis=1))
    assert np.array_equal(ours["environment_state"], obs.proprio[:, 9:])
    assert ours["environment_state"].shape == (2, 12)
    assert np.array_equal(ours["environment_state"], theirs["environment_state"])
    inside = caliper.make_env("lift", 2, task={"obs": "state", "proprio": ROBOSUITE}, device="cpu")
    from caliper.envs.gym import GymVectorEnv

    wrapped = GymVectorEnv(inside, names="robomimic").reset(seed=0)[0]
    assert {name: part.shape[1:] for name, part in wrapped.items()}["environment_state"] == (12,)
    state = gymnasium.make("caliper/Lift-v0", obs="state", names="robomimic").unwrapped
    assert {name: box.shape for name, box in state.observation_space.items()} == {
        "robot0_eef_pos": (3,),
        "robot0_eef_quat": (4,),
        "robot0_gripper_qpos": (2,),
        "environment_state": (12,),
    }
    wrist = ours["pixels"]["robot0_eye_in_hand"]
    assert np.array_equal(wrist.transpose(0, 3, 1, 2), obs.pixels[:, 1])


def test_depth_and_segmentation_of_cameras_of_two_sizes_have_robosuites_names():
    settings = {
        "cameras": {"agentview": (16, 24), "robot0_eye_in_hand": 16},
        **{"depth": True, "segmentation": True, "threads": 1, "robot": "sawyer"},
        "proprio": ["robot0_joint_pos", "robot0_eef_pos"],
    }
    plain = gymnasium.make("caliper/Lift-v0", **settings).unwrapped
    theirs = gymnasium.make("caliper/Lift-v0", **settings, names="robomimic").unwrapped
    obs, named = (env.reset(seed=2)[0] for env in (plain, theirs))
    assert obs in plain.observation_space and named in theirs.observation_space
    assert set(obs) == {
        *("proprio", "pixels", "depth", "segmentation"),
        *("pixels_16x16", "depth_16x16", "segmentation_16x16"),
    }
    endings = ("image", "depth", "segmentation_instance")
    views = {f"{camera}_{ending}" for camera in settings["cameras"] for ending in endings}
    assert set(named) == views | {"robot0_joint_pos", "robot0_eef_pos"}
    depth = named["agentview_depth"]
    assert depth.shape == (16, 24, 1) and depth.dtype == np.float16 and 0.3 < depth.max() < 10
    assert np.array_equal(depth[..., 0], obs["depth"][0, 0])
    assert np.array_equal(named["robot0_eye_in_hand_image"].transpose(2, 0, 1), obs["pixels_16x16"][0])
    # Nothing, arm, gripper and cube.
    assert set(np.unique(named["agentview_segmentation_instance"])) == {0, 1, 2, 3}
    assert np.array_equal(np.concatenate([named[key] for key in settings["proprio"]]), obs["proprio"])


def test_stacked_frames_are_the_vector_envs_too():
    env = gymnasium.make("caliper/Lift-v0", **SMALL, frame_stack=2).unwrapped
    first, _ = env.reset(seed=1)
    assert first in env.observation_space and first["pixels"].shape == (1, 6, 16, 16)
    assert np.array_equal(first["pixels"][:, :3], first["pixels"][:, 3:])
    second, *_ = env.step(np.ones(4, np.float32))
    assert np.array_equal(second["pixels"][:, :3], first["pixels"][:, 3:])
    assert not np.array_equal(second["pixels"][:, 3:], first["pixels"][:, 3:])
    with pytest.raises(CaliperError, match="have no word for stacked frames"):
        gymnasium.make("caliper/Lift-v0", **SMALL, frame_stack=2, names="robomimic")
