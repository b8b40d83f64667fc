"""States carried into our scene, and what is refused because it is another scene."""

import mujoco
import numpy as np
import pytest

from caliper.envs.sim import task_scene
from caliper.errors import CaliperError
from caliper.importing.model.compiled import physics_model
from caliper.importing.scene import SceneTrial, canonical, carry, differences, fingers_closed

ROBOT = (
    '<body name="base"><body name="link" pos="0 0 {height}"><joint name="robot0_joint1"/><geom size=".01"/>'
    '<site name="grip"/></body></body>'
)
SCENE = (
    "<mujoco><worldbody>"
    + ROBOT
    + """
<body name="{table}" pos="{x} 0 0"><geom type="box" size=".5 .5 .1" pos="2 0 0"/></body>
<body name="{cube}" pos="2 0 {z}"><joint name="{joint}" type="free"/>
<geom type="box" size="{half} {half} {half}"/></body>
{more}</worldbody></mujoco>"""
)


def scene(table="table", cube="cube_main", joint="cube_joint0", x=0.0, z=0.2, half=0.1, height=0.5, more=""):
    values = {"table": table, "cube": cube, "joint": joint, "x": x, "z": z, "half": half, "height": height}
    return mujoco.MjModel.from_xml_string(SCENE.format(**values, more=more))


def start(model):
    data = mujoco.MjData(model)
    return np.concatenate([[0.0], data.qpos, data.qvel])


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("robot0_joint3", "robot0_joint3"),
        ("robot0_right_hand", "robot0_hand"),
        ("gripper0_right_finger_joint2", "gripper0_finger_joint2"),
        ("cube_joint0", "cube"),
        ("cube_jnt0", "cube"),
        ("Milk0_jnt0", "Milk"),
        ("Can_joint0", "Can"),
        ("hammer_root", "hammer"),
        ("cubeA_main", "cubeA"),
        ("cream_cheese_1_joint0", "cream_cheese_1"),
        ("bin1", "bin1"),
    ],
)
def test_names_of_every_version_meet(name, plain):
    assert canonical(name) == plain


def test_states_are_carried_by_name_with_quaternions_as_they_are():
    """Ours has the cube before the robot's joint in its states; a quaternion is w x y z in both."""
    theirs = scene(joint="cube_jnt0")
    ours = mujoco.MjModel.from_xml_string(
        "<mujoco><worldbody><body name='c'><joint name='cube_joint0' type='free'/><geom size='.1'/></body>"
        "<body><joint name='robot0_joint1'/><geom size='.1'/></body></worldbody></mujoco>"
    )
    state = np.arange(1 + theirs.nq + theirs.nv, dtype=float)[
        None
    ]  # time 0, joint 1, cube 2..8, speeds 9, 10..15
    carried = carry(theirs, ours, state)
    assert carried.states[0].tolist() == [0, 2, 3, 4, 5, 6, 7, 8, 1, 10, 11, 12, 13, 14, 15, 9]
    assert carried.parked == []


OTHER = '<body name="milk" pos="{x} 0 0"><joint name="Milk_joint0" type="free"/><geom size=".1"/></body>'


def test_parked_objects_are_left_out_and_others_refused():
    ours = scene()
    parked, near = (scene(more=OTHER.format(x=x)) for x in (10, 1))
    assert carry(parked, ours, start(parked)[None]).parked == ["Milk"]
    with pytest.raises(CaliperError, match="its Milk takes part"):
        carry(near, ours, start(near)[None])


def test_a_joint_without_a_partner_is_refused():
    with pytest.raises(CaliperError, match="no joint for Milk_joint0"):
        carry(scene(), scene(more=OTHER.format(x=1)), start(scene())[None])


def gaps(theirs, ours):
    return differences(theirs, ours, start(theirs), start(ours), (0, 0))


def test_equal_scenes_have_no_differences():
    assert gaps(scene(), scene(table="table")) == []


def test_small_differences_are_noted():
    assert gaps(scene(), scene(half=0.1008)) == ["half sides of cube differ by 0.8 mm"]
    assert gaps(scene(), scene(height=0.501)) == ["the hand stands 1.0 mm elsewhere"]
    assert gaps(scene(table="table_main"), scene(x=0.002)) == ["table stands 2.0 mm elsewhere"]


@pytest.mark.parametrize(
    ("ours", "words"),
    [
        ({"x": 0.05}, "table stands 5.0 cm elsewhere"),  # a door, whose pose is in the model alone
        ({"height": 0.55}, "the hand stands 5.0 cm elsewhere"),  # a base that is higher
        ({"half": 0.109}, "9 mm deeper"),
        ({"half": 0.12}, "the scene's cube is another of the same name: its half sides differ by 20 mm"),
    ],
)
def test_other_scenes_are_refused(ours, words):
    with pytest.raises(CaliperError, match=words):
        gaps(scene(), scene(**ours))


def test_contacts_of_parked_objects_do_not_hide_those_of_others():
    parked = "".join(OTHER.format(x=10).replace("ilk", f"ilk{i}") for i in "ab")
    with pytest.raises(CaliperError, match="9 mm deeper"):
        gaps(scene(more=parked), scene(half=0.109))


def test_another_shape_of_the_same_size_is_noted():
    """A cylinder in the cube's place: pi/4 of its mass, 3/4 of that again about its axis."""
    box = '<geom type="box" size="0.1 0.1 0.1"/></body>'
    xml = SCENE.format(
        table="table", cube="cube_main", joint="cube_joint0", x=0, z=0.2, half=0.1, height=0.5, more=""
    )
    assert box in xml
    other = mujoco.MjModel.from_xml_string(xml.replace(box, '<geom type="cylinder" size="0.1 0.1"/></body>'))
    (note,) = gaps(scene(), other)
    assert note.startswith("warning: mass or shape of cube is another, its inertia by ")
    heavier = mujoco.MjModel.from_xml_string(xml.replace(box, box.replace("/>", ' density="1100"/>', 1)))
    assert gaps(scene(), heavier) == ["warning: mass or shape of cube is another, its inertia by 9%"]


def test_cube_sizes_of_each_demo_are_noted(recordings):
    """Caliper's cube has half sides of 21 mm; robosuite draws each between 20 and 22."""
    ours = task_scene("lift").model
    site = ours.site("gripper0_right_grip_site").id
    for demo in recordings["robosuite141_lift"].demos:
        theirs = physics_model(demo.model)
        size = theirs.geom_size[theirs.geom("cube_g0").id]
        grip = theirs.site("gripper0_grip_site").id
        states = demo.states[0], carry(theirs, ours, demo.states[:1]).states[0]
        (note,) = differences(theirs, ours, *states, (grip, site))
        assert note == f"half sides of cube differ by {1e3 * np.abs(size - 0.021).max():.1f} mm"


def test_fingers_jump_by_a_fifth_at_20_hz():
    grip = np.array([1.0, 1, -0.3, 0, 1])
    assert np.allclose(fingers_closed(grip, 20)[:, 1], [0, 0.2, 0.4, 0.2, 0.2])
    assert np.allclose(fingers_closed(grip, 10)[:, 1], [0, 0.4, 0.8, 0.4, 0.4])


def test_a_step_of_the_trial_is_a_step_of_the_scene():
    """States that the scene made itself, at many times: every single step repeats, and success is seen."""
    trial = SceneTrial("lift", "osc_pose", 20)
    env = trial.env
    env.reset()
    actions = np.random.default_rng(0).uniform(-1, 1, (70, 7)).astype(np.float32).astype(float)
    import torch

    rows = []
    for action in actions:
        rows.append(env.get_state()[0].numpy().copy())
        env.step(torch.as_tensor(action).repeat(env.num_envs, 1))
    states = np.array(rows)
    step = trial.step(states, actions, "start")
    assert step.arm.shape == (69,)
    assert np.median(step.arm) < 1e-9
    assert np.median(step.object) < 1e-7
    height = states[:3].copy()
    height[1, 1 + trial.model.jnt_qposadr[trial.model.joint("cube_joint0").id] + 2] = 0.9
    assert trial.solved(height).tolist() == [False, True, False]
