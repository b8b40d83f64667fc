"""What a user's terminal must not be littered with, and the oracle's patches."""

import os
import subprocess
import sys

import mujoco
import numpy as np
import pytest

from caliper.errors import CaliperError
from tests.oracle import joint_state, make_oracle

SCRIPT = """
import sys
from caliper.envs.sim import SimEnv
SimEnv("lift", 1, size=16).observe()
if "oracle" in sys.argv:
    from tests.oracle import make_oracle
    make_oracle("lift").reset()
import os
assert "MUJOCO_GL" not in os.environ  # what is started from here may be where there is no OpenGL
"""


def test_envs_and_oracles_print_nothing():
    env = {name: value for name, value in os.environ.items() if name != "MUJOCO_GL"}
    done = subprocess.run([sys.executable, "-c", SCRIPT, "oracle"], capture_output=True, text=True, env=env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("chosen", ["osmesa", pytest.param("nobodys", marks=pytest.mark.slow)])
def test_the_choice_of_a_renderer_is_neither_read_nor_changed(chosen):
    """MuJoCo's package would load what is named there, and crash where it is not installed."""
    script = SCRIPT.replace('"MUJOCO_GL" not in os.environ', f'os.environ["MUJOCO_GL"] == "{chosen}"')
    env = os.environ | {"MUJOCO_GL": chosen}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.slow
def test_without_a_folder_to_keep_compiled_code_in():
    env = {name: value for name, value in os.environ.items() if "CACHE" not in name}
    env |= {"HOME": "/proc/nowhere", "XDG_CACHE_HOME": "/proc/nowhere"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=env)
    assert done.returncode == 0 and done.stderr.count("\n") == 1
    assert "/proc/nowhere cannot be written to, so code is compiled anew" in done.stderr


def test_errors_still_reach_the_terminal_after_warps_start():
    script = "import sys, caliper.envs; sys.stderr.write('seen')"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stderr == "seen"


def test_the_patched_oracle_finds_joints_and_the_inertia(oracle):
    env = oracle("lift")
    model = env.sim.model
    assert model.get_joint_qpos_addr("robot0_joint1") == 0
    start, end = model.get_joint_qpos_addr("cube_joint0")
    assert end - start == 7
    start, end = model.get_joint_qvel_addr("cube_joint0")
    assert end - start == 6
    full = np.zeros((model.nv, model.nv))
    mujoco.mj_fullM(model._model, env.sim.data._data, full)
    arm = env.robots[0].part_controllers["right"]
    arm.update(force=True)
    np.testing.assert_array_equal(arm.mass_matrix, full[:7, :7])


def test_joint_states_are_matched_by_name(oracle):
    from caliper.envs.sim import task_scene

    env, model = oracle("pick_place_can"), task_scene("pick_place_can").model
    qpos, qvel = joint_state(env, model)
    assert qpos.shape == (model.nq,) and qvel.shape == (model.nv,)
    at = model.jnt_qposadr[model.joint("Can_joint0").id]
    np.testing.assert_array_equal(qpos[at : at + 3], env.sim.data.body_xpos[env.obj_body_id["Can"]])


@pytest.mark.parametrize("args", [("sweeping",), ("lift", "joint_torque")])
def test_the_oracle_says_what_it_has(args):
    with pytest.raises(CaliperError, match="choose one of"):
        make_oracle(*args)
