"""How the ant of AntMaze is trained: what its teacher sees, what its student learns, and a clone of walks."""

import sys

import numpy as np
import pytest

pytest.importorskip("gymnasium_robotics", reason="needs the extra robotics")

from caliper.data.formats.minari import Recording
from caliper.data.formats.minari_writer import write_observations


def test_a_goal_to_the_left_is_one_ahead_of_another_leg(benchmark_script):
    train_ant = benchmark_script("train_ant")

    qpos = np.array(
        [[5.0, 1, 0.6, 1, 0, 0, 0, 0.1, 0.5, 0.2, -0.6, 0.3, -0.7, 0.4, 0.8]]
    )  # hip, ankle by leg
    qvel = np.zeros((1, 14))
    qvel[0, :6] = [-2, 1, 0.5, 0.7, 0.2, 0.1]
    quarter = train_ant.Quarter.of(qpos, qvel, np.array([[5.0, 4.0]]))
    assert quarter.turns.tolist() == [1]
    seen = quarter.seen[0]
    expected = [
        0.6,
        0,
        0,
        1,
        0.5,
        1,
        2,
        0.2,
        -0.7,
        0.1,
    ]  # height; up; rise, speed ahead and to the left; spin
    np.testing.assert_allclose(seen[:10], expected, atol=1e-12)
    np.testing.assert_allclose(
        seen[10:18], [0.2, 0.3, 0.4, 0.1, 0.6, 0.7, 0.8, 0.5]
    )  # from the second leg on
    np.testing.assert_allclose(seen[26:], [2, 0], atol=1e-12)  # no farther than 2
    motors = quarter.motors(np.array([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]]))
    # Gymnasium's order: fourth leg, first, second, third; the first action's pair belongs to the second leg.
    np.testing.assert_allclose(motors[0], [0.3, 0.7, 0.4, 0.8, 0.1, -0.5, 0.2, -0.6])


def test_a_student_learns_what_its_teacher_does(benchmark_script, tmp_path, monkeypatch, capsys):
    distil_ant = benchmark_script("distil_ant")

    rng = np.random.default_rng(0)
    shapes = {"w0": (16, 28), "b0": (16,), "w1": (8, 16), "b1": (8,)}
    np.savez(
        tmp_path / "teacher.npz", **{k: 0.3 * rng.normal(size=v).astype("f4") for k, v in shapes.items()}
    )
    out = tmp_path / "student.npz"
    words = ["distil_ant.py", str(tmp_path / "teacher.npz"), str(out), "--updates", "2000"]
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(distil_ant, "BATCH", 64)
    distil_ant.main()
    assert float(capsys.readouterr().out.split("R2 ")[1][:5]) > 0.25
    with np.load(out) as file:
        assert {name: file[name].shape for name in file} == {
            "w0": (128, 29), "b0": (128,), "w1": (128, 128), "b1": (128,), "w2": (8, 128), "b2": (8,),
        }  # fmt: skip


def test_walks_from_one_end_to_the_other_are_those_of_the_task(benchmark_script):
    course = benchmark_script("clone_ant").Course("antmaze")
    course.horizon = 2

    def ends(fixed):
        found = course.walks(lambda qpos, *_: np.zeros((len(qpos), 8)), 0.0, 9, fixed)
        return np.array([walk.obs[0, :4] for walk in found])

    # At most a quarter of a cell's side from its middle.
    assert np.abs(ends(fixed=True) - [-4, -4, -4, 4]).max() <= 1
    assert np.abs(ends(fixed=False) - [-4, -4, -4, 4]).max() > 4
    first = np.random.default_rng(10**6).choice(len(course.maze.cells), 2, replace=False)
    assert np.abs(ends(fixed=False)[0] - course.maze.middles[first].ravel()).max() <= 1


@pytest.mark.parametrize("normalize", [False, True])
def test_a_clone_is_measured_on_walks_that_it_has_not_seen(benchmark_script, tmp_path, normalize):
    clone_ant = benchmark_script("clone_ant")
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 0.1, (31, 8))

    def walk(noise):
        obs = rng.normal(size=(101, 31)).astype("f4")
        actions = (obs[:-1] @ weights + noise * rng.normal(size=(100, 8))).astype("f4").clip(-1, 1)
        reached = np.arange(100) == 99
        if normalize:
            obs = 5 + 0.01 * obs  # nearly nothing, to a network that sees it as it is
        return Recording(obs, actions, reached.astype("f4"), reached)

    # Of the unseen walks, the last ones, half of the actions' variance is noise; in the others there is none.
    folder = tmp_path / "walks"
    folder.mkdir()
    walks = [*(walk(0.0) for _ in range(38)), walk(0.55), walk(0.55)]
    write_observations(folder, "AntMaze_UMaze-v4", "antmaze", walks, "a linear policy")
    course = clone_ant.Course("antmaze")
    course.horizon = 3
    found = clone_ant.clone(folder, normalize, course, 2000, 2)
    assert (found["walks"], found["unseen walks"], found["transitions"]) == (38, 2, 3800)
    assert [point["updates"] for point in found["curve"]] == list(range(250, 2001, 250))
    assert 0.3 < found["curve"][-1]["R2"] < 0.6
    assert found["curve"][-1]["end to end"] == 0
