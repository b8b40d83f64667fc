"""How the ant of AntMaze is trained: what its teacher sees, and that a student walks as the teacher does."""

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gymnasium_robotics", reason="needs the extra robotics")


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    yield
    for name in ("train_ant", "distil_ant"):
        sys.modules.pop(name, None)


def test_a_goal_to_the_left_is_one_ahead_of_another_leg(scripts):
    import train_ant  # type: ignore[import-not-found]  # found by the fixture's path

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


def test_a_student_learns_what_its_teacher_does(scripts, tmp_path, monkeypatch, capsys):
    import distil_ant  # type: ignore[import-not-found]  # found by the fixture's path

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
            "w0": (64, 29), "b0": (64,), "w1": (64, 64), "b1": (64,), "w2": (8, 64), "b2": (8,),
        }  # fmt: skip
