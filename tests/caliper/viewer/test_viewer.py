"""What the page shows and does, without a browser; `test_in_browser` opens it."""

from dataclasses import replace

import mujoco
import numpy as np
import pytest
import torch

import caliper
from caliper.config.build import dataset_meta
from caliper.config.compose import compose
from caliper.data.formats.robomimic import DatasetWriter, read_dataset
from caliper.envs.sim import task_scene
from caliper.errors import CaliperError
from caliper.tools.saved_run import load_agent
from caliper.viewer.demonstrations import Demonstrations
from caliper.viewer.exported import scene_config
from caliper.viewer.keys import moves
from caliper.viewer.live import Live
from caliper.viewer.recorded import Recorded

WORDS = ["task=lift", "threads=1", "task.size=16", "task.horizon=6"]


@pytest.fixture(scope="module")
def one():
    return Live(compose(WORDS))


@pytest.fixture
def shown(one):
    one.restart(0)
    return one


def acted(shown, steps, action=(0.5, 0.0, -1.0, -1.0)):
    for _ in range(steps):
        shown.advance(torch.tensor(action))


def test_a_key_moves_the_grip_point_along_its_axis(shown):
    sim = shown.env.env
    for move in moves("osc_position", "panda"):
        shown.restart(0)
        before = sim.grip_pos[0].clone()
        action = torch.zeros(4)
        action[move.entry], action[3] = move.sign, -1.0
        shown.advance(action)
        moved = (sim.grip_pos[0] - before) * move.sign
        assert moved.abs().argmax() == move.entry and moved[move.entry] > 0.005, move


def test_six_directions_and_six_turns_each_have_a_key_of_their_own():
    found = moves("osc_pose", "panda")
    assert len({(m.key, m.shift) for m in found}) == len(found) == 12
    assert {(m.entry, m.sign) for m in found} == {(i, s) for i in range(6) for s in (1, -1)}
    assert not {m.key for m in found} & set("WASDQEG")


def test_joints_have_no_keys():
    with pytest.raises(CaliperError, match="osc_position or osc_pose"):
        moves("joint_velocity", "panda")


def test_an_episode_ends_with_its_time_and_shows_where_the_last_action_led(shown):
    acted(shown, 5)
    assert shown.outcome == "" and np.isnan(shown.returns()).all()
    acted(shown, 3)  # two of which come too late
    assert len(shown) == 6 and shown.outcome == "not solved in time" and not shown.success
    assert shown.state[0] == pytest.approx(0.6)  # s: six steps at 10 Hz, not the new episode's 0
    gamma = shown.config.discount
    assert shown.returns() == pytest.approx(np.full(6, shown.config.reward.bias / (1 - gamma)), rel=1e-5)


def test_until_the_end_the_newest_q_stands_for_what_is_still_to_come(shown):
    acted(shown, 3)
    shown.q = [9.0, 9.0, -2.0]
    gamma, bias = shown.config.discount, shown.config.reward.bias
    assert shown.returns() == pytest.approx([bias + gamma * (bias - 2 * gamma), bias - 2 * gamma, -2.0])


def test_demonstrations_are_a_dataset_that_grows_and_replays_bit_for_bit(shown, tmp_path):
    path, config = tmp_path / "demo.hdf5", shown.config
    saved = Demonstrations(path, config)
    assert saved.next_episode == 0
    acted(shown, 3)
    saved.add(shown.recorded())
    shown.restart(saved.next_episode)
    acted(shown, 2)
    again = Demonstrations(path, config)  # another day
    assert again.next_episode == 1
    again.add(shown.recorded())
    found = read_dataset(path)
    assert [len(e) for e in found.episodes] == [3, 2] and found.meta.collector == "keyboard"
    assert not list(tmp_path.glob(".*"))
    found.check(dataset_meta(compose(["task=lift"])))  # what training with data.path asks of it

    for number, episode in enumerate(found.episodes):
        shown.restart(number)
        assert shown.seed == episode.seed
        for state, action in zip(episode.states, episode.actions, strict=True):
            assert (shown.state == state).all()
            shown.advance(torch.from_numpy(action))
        assert (shown.state == episode.final_state).all()


def test_an_interrupted_write_keeps_what_was_saved(shown, tmp_path, monkeypatch):
    saved = Demonstrations(tmp_path / "demo.hdf5", shown.config)
    acted(shown, 1)
    saved.add(shown.recorded())
    before = saved.path.read_bytes()

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", stop)
    with pytest.raises(KeyboardInterrupt):
        saved.add(shown.recorded())
    assert saved.path.read_bytes() == before and len(saved.episodes) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["demo.hdf5"]


@pytest.mark.slow
def test_a_dataset_is_leafed_through(shown, tmp_path):
    path = tmp_path / "demo.hdf5"
    acted(shown, 3)
    recorded = shown.recorded()
    Demonstrations(path, shown.config).add(recorded)
    leafed = Recorded(path, ["task.size=16", "threads=1"])
    for frame, state in enumerate([*recorded.states, recorded.final_state]):
        leafed.go(0, frame)
        assert (leafed.state == state).all()
        assert (leafed.env.get_state()[0].numpy()[1:] == state[1:]).all()  # but for the time
    assert leafed.images()["agentview"].shape == (16, 16, 3)
    leafed.go(0, 99)
    assert leafed.frame == len(leafed) == 3 and leafed.outcome == "not solved"


@pytest.mark.slow
def test_an_exported_policy_plays_the_episodes_of_its_run(finished, tmp_path):
    run = caliper.load_run(finished.folder)
    policy = caliper.load_policy(run.export(tmp_path / "out"))
    agent, _ = load_agent(finished.folder, run.config())
    lives = [Live(run.config(), agent), Live(scene_config(policy, tmp_path, []), policy)]
    for live in lives:
        for _ in range(3):
            live.advance()
    ours, its = lives
    assert ours.seed == its.seed and len(its) == 3 and its.q == [] and len(ours.q) == 3
    assert (ours.recorded().actions == its.recorded().actions).all() and (ours.state == its.state).all()

    policy.card["observation"]["cameras"][0]["name"] = "${oc.env:HOME}"
    with pytest.raises(CaliperError, match="sees by the camera"):
        scene_config(policy, tmp_path, [])


def test_nothing_is_no_demonstration(shown):
    with pytest.raises(CaliperError, match="nothing has happened"):
        shown.recorded()


def test_the_experts_file_is_left_alone(shown, tmp_path):
    path = tmp_path / "expert.hdf5"
    acted(shown, 1)
    with DatasetWriter(path, replace(dataset_meta(shown.config), collector="scripted expert")) as writer:
        writer.add(shown.recorded())
    with pytest.raises(CaliperError, match="made by scripted expert; name another file with --out"):
        Demonstrations(path, shown.config)


@pytest.mark.slow
def test_the_meshes_are_the_scenes_visible_geoms_where_mujoco_has_them():
    shapes = pytest.importorskip("caliper.viewer.shapes", exc_type=ImportError)
    model = task_scene("lift").model
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    state = np.concatenate([[0.0], data.qpos, data.qvel, np.zeros(7 * model.nmocap)])
    positions, turns = shapes.Poses(model).of(state)
    assert positions == pytest.approx(data.xpos) and turns == pytest.approx(data.xquat)
    found = shapes.meshes(model)
    cube = model.body("cube_main").id
    ((_, colour), mesh) = next((key, mesh) for key, mesh in found.items() if key[0] == cube)
    geom = next(g for g in range(model.ngeom) if model.geom_bodyid[g] == cube and model.geom_group[g] == 1)
    assert mesh.bounds[1] == pytest.approx(model.geom_size[geom]) and colour[0] > colour[1]
    hand = [g for g in range(model.ngeom) if model.geom_group[g] == 1 and model.geom_type[g] == 7]
    for g in hand[:10]:  # each mesh's corners are among those of its body, where MuJoCo puts them
        first, count = model.mesh_vertadr[model.geom_dataid[g]], model.mesh_vertnum[model.geom_dataid[g]]
        corners = (
            model.mesh_vert[first : first + count] @ data.geom_xmat[g].reshape(3, 3).T + data.geom_xpos[g]
        )
        body = int(model.geom_bodyid[g])
        own = np.concatenate([mesh.vertices for (b, _), mesh in found.items() if b == body])
        placed = own @ data.xmat[body].reshape(3, 3).T + data.xpos[body]
        assert (placed.min(0) <= corners.min(0) + 1e-6).all() and (
            placed.max(0) >= corners.max(0) - 1e-6
        ).all()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "say what to show"),
        (["task=lift", "--port", "x"], "--port x must be a number"),
        (["task=lift", "--prot", "1"], "--prot is not known"),
        (["nowhere"], "is not a run folder"),
        (["task=kitchen"], "no scene of Caliper's own"),
        (["task=lift", "--out"], "--out is not known or lacks its value"),
        (["runs/demo", "--out", "x.hdf5"], "--out takes demonstrations of the keyboard"),
        (["task=lift", "task.controller=joint_velocity"], "cannot be moved by keys"),
    ],
)
def test_what_cannot_be_shown_is_said(words, why):
    pytest.importorskip("viser")
    from caliper.viewer.view import open_page

    with pytest.raises(CaliperError, match=why):
        open_page(words)
