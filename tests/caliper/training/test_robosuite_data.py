"""A run in an environment of robosuite on recorded data: the page's program and commands, executed."""

import re
import shlex
from pathlib import Path

import h5py
import pytest
import torch

import caliper
from caliper.cli import main
from caliper.config.build import action_length
from caliper.config.compose import compose, load
from caliper.envs.robot.action_meaning import robosuite_meaning
from caliper.errors import CaliperError
from caliper.training.data import find_data
from caliper.utils.foreign import read_json
from tests.small_runs import AGENTS, SMALL

PAGE = Path(__file__).parents[3] / "docs" / "tasks" / "robosuite.md"
TINY = [*SMALL[1:], "encoder=conv_tiny", "device=cpu", *AGENTS["calql"], "task.size=16"]
TINY += ["offline.bc_updates=1", "offline.updates=2", "online.env_steps=14"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the page's program ran, and its two commands; the run is small and filmed."""
    folder = tmp_path_factory.mktemp("robosuite")
    text = PAGE.read_text(encoding="utf-8")
    (program,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    train, replay = text[text.index("Episode(*episode)") :].split("```sh\n")[1].splitlines()[:2]
    film = ["video.episodes=1", "video.size=32", f"run_dir={folder / 'run'}"]
    with pytest.MonkeyPatch.context() as here:
        here.chdir(folder)
        exec(compile(program, "documentation", "exec"), {"__name__": "documentation"})
        main([*shlex.split(train)[1:], *TINY, *film])
        main([*shlex.split(replay)[1:], "threads=1"])
    return folder


def test_a_run_learns_from_the_file(folder):
    run = caliper.load_run(folder / "run")
    assert run.evaluations[-1].env_steps == 14 and (folder / "run" / "videos" / "rollouts.mp4").exists()
    assert run.config().data.path == str(folder / "robosuite_lift.hdf5")
    assert run.evaluate("evaluation.episodes=1").episodes == 1


def test_the_file_gets_images(folder):
    with h5py.File(folder / "robosuite_lift_84px.hdf5") as file:
        images = file["data/demo_1/obs/agentview_image"]
        assert images.shape == (30, 84, 84, 3) and images[0].std() > 10


def test_a_policy_leaves_with_its_own_scene_s_card(folder, tmp_path):
    main(["export", str(folder / "run"), str(tmp_path / "out")])
    card = read_json(tmp_path / "out" / "policy.json")
    assert (card["task"], card["robot"]) == ("robosuite/Lift", "panda")
    assert [camera["name"] for camera in card["observation"]["cameras"]] == ["agentview"]
    told = card["observation"]["proprio"]
    assert told["entries"][0] == "0 to 6: robot0_joint_pos, as robosuite observes it"
    n = told["length"]
    assert told["entries"][-1].startswith(f"{n - 2} to {n - 1}: robot0_gripper_qvel")
    names = [entry["name"] for entry in card["action"]["entries"]]
    assert names[:2] == ["robot0 x", "robot0 y"] and len(names) == card["action"]["length"] == 7
    policy = caliper.load_policy(tmp_path / "out")
    images = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    action = policy.act(images, torch.zeros(n))
    assert torch.equal(action, caliper.load_policy(folder / "run").act(images, torch.zeros(n)))


def test_data_of_another_environment_are_refused_without_a_command_that_does_not_exist(folder):
    words = ["task=robosuite", "task.env=Stack", "task.robots=[panda]"]
    path = folder / "robosuite_lift.hdf5"
    with pytest.raises(CaliperError, match=r"'robosuite/Stack' is needed.*Record it again in this scene$"):
        find_data(compose([*words, f"data.path={path}"]))
    with pytest.raises(CaliperError, match="does not exist; name one that does"):
        find_data(compose([*words, f"data.path={path}.none"]))
    begun = load(folder / "run" / "config.yaml", [f"data.path={path}.none"])
    with pytest.raises(CaliperError, match=r"where with data.path=\.\.\.$"):
        find_data(begun)


@pytest.mark.parametrize("controller", ["osc_pose", "osc_position", "joint_position", "joint_velocity"])
def test_two_arms_are_told_in_turn(controller):
    words = ["task=robosuite", "task.robots=[panda,iiwa]", f"task.controller={controller}"]
    told = robosuite_meaning(controller, 10, ["panda", "iiwa"])
    names = [entry["name"] for entry in told["entries"]]
    assert len(names) == action_length(compose(words)) and len(set(names)) == len(names)
    grippers = [entry["meaning"] for entry in told["entries"] if entry["name"].endswith("gripper")]
    # robosuite's fingers go 0.2 of half their way a step, the Robotiq's the same: ten steps from end to end.
    assert [meaning.split("; ")[1] for meaning in grippers] == ["1 s a way", "1 s a way"]
    if controller == "osc_pose":
        assert told["frame"].startswith("robot0: each robot's own base") and "; robot1: " in told["frame"]
