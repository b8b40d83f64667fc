"""What the page shows and does, without a browser; `test_in_browser` opens it."""

import mujoco
import numpy as np
import pytest
import torch

from caliper.config.compose import compose
from caliper.data.robomimic import read_dataset
from caliper.envs.sim import task_scene
from caliper.errors import CaliperError
from caliper.viewer.demonstrations import Demonstrations
from caliper.viewer.keys import moves
from caliper.viewer.live import Live
from caliper.viewer.recorded import Recorded

WORDS = ["task=lift", "threads=1", "task.size=16", "task.horizon=6"]


def live(*words):
    return Live(compose([*WORDS, *words]))


def acted(shown, steps, action=(0.5, 0.0, -1.0, -1.0)):
    for _ in range(steps):
        shown.advance(torch.tensor(action))


def test_a_key_moves_the_grip_point_along_its_axis():
    shown = live()
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


def test_an_episode_ends_with_its_time_and_shows_where_the_last_action_led():
    shown = live()
    acted(shown, 5)
    assert shown.outcome == "" and np.isnan(shown.returns()).all()
    acted(shown, 3)  # two of which come too late
    assert len(shown) == 6 and shown.outcome == "not solved in time" and not shown.success
    assert shown.state[0] == pytest.approx(0.6)  # s: six steps at 10 Hz, not the new episode's 0
    gamma = shown.config.discount
    assert shown.returns() == pytest.approx(np.full(6, shown.config.reward.bias / (1 - gamma)), rel=1e-5)


def test_demonstrations_are_a_dataset_that_grows_and_replays(tmp_path):
    path = tmp_path / "demo.hdf5"
    shown = live()
    saved = Demonstrations(path, shown.config)
    acted(shown, 3)
    saved.add(shown.recorded())
    states = np.stack([*shown._states, shown.state])
    shown.restart(1)
    acted(shown, 2)
    Demonstrations(path, shown.config).add(shown.recorded())  # another day
    found = read_dataset(path)
    assert [len(e) for e in found.episodes] == [3, 2] and found.meta.collector == "keyboard"
    assert len({e.seed for e in found.episodes}) == 2

    leafed = Recorded(path, ["task.size=16", "threads=1"])
    for frame in (0, 2, 3):
        leafed.go(0, frame)
        assert (leafed.state == states[frame]).all()
        assert (leafed.env.get_state()[0].numpy()[1:] == states[frame, 1:]).all()  # but for the time
    assert leafed.images()["agentview"].shape == (16, 16, 3)
    leafed.go(1, 99)
    assert leafed.frame == len(leafed) == 2 and leafed.outcome == "not solved"


def test_nothing_is_no_demonstration():
    with pytest.raises(CaliperError, match="nothing has happened"):
        live().recorded()


def test_the_experts_file_is_left_alone(tmp_path):
    from dataclasses import replace

    from caliper.config.build import dataset_meta
    from caliper.data.robomimic import DatasetWriter

    shown, path = live(), tmp_path / "expert.hdf5"
    acted(shown, 1)
    with DatasetWriter(path, replace(dataset_meta(shown.config), collector="scripted expert")) as writer:
        writer.add(shown.recorded())
    with pytest.raises(CaliperError, match="made by scripted expert; name another file with --out"):
        Demonstrations(path, shown.config)


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
        (["task=kitchen"], "no scene of Caliper's own|gymnasium"),
        (["task=lift", "task.controller=joint_velocity"], "cannot be moved by keys"),
    ],
)
def test_what_cannot_be_shown_is_said(words, why):
    pytest.importorskip("viser")
    from caliper.viewer.view import open_page

    with pytest.raises(CaliperError, match=why):
        open_page(words)
