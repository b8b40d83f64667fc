"""The page of observations: each of its commands trains, and what it says is stored is stored."""

import re
import shlex
from pathlib import Path

import pytest

import caliper
from caliper.config.build import obs_spec
from caliper.config.compose import compose
from caliper.config.validate import check
from caliper.data.buffer import ReplayBuffer
from caliper.encoders import ENCODERS
from caliper.envs.observation.lowdim import LENGTHS
from caliper.envs.scene.appearance import NAMED_APPEARANCES
from caliper.errors import CaliperError
from caliper.training.checkpoint import load_checkpoint
from tests.small_runs import AGENTS, SMALL

PAGE = (Path(__file__).parents[3] / "docs" / "observations.md").read_text(encoding="utf-8")
LINES = [line for line in PAGE.splitlines() if line.startswith("caliper train ")]
SMALLER = [*SMALL[1:], *AGENTS["calql"], "device=cpu", "offline.bc_updates=1", "offline.updates=2"]
SMALLER += ["online.env_steps=14", "evaluation.final_episodes=2"]


@pytest.mark.slow
@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("line", LINES, ids=[line.removeprefix("caliper train task=lift ") for line in LINES])
def test_a_command_trains(line, dataset, tmp_path):
    words = shlex.split(line)[2:]
    tiny = [] if "obs=state" in words else ["encoder=conv_tiny"]
    run = caliper.train(*words, *tiny, *SMALLER, f"data.path={dataset}", f"run_dir={tmp_path / 'run'}")
    _, state = load_checkpoint(run.folder)
    assert state["counters"]["updates"] > 2 and state["counters"]["env_steps"] == 14
    assert run.evaluations[-1].env_steps == 14


def spec(*words):
    return obs_spec(compose(["task=lift", *words]))


def test_what_is_stored_of_a_frame():
    plain, all_of_it = spec(), spec("task.depth=true", "task.segmentation=true", "task.frame_stack=3")
    kib = {plane.kind: plane.dtype.itemsize for plane in all_of_it.planes.values()}
    assert all_of_it.image_bytes / plain.image_bytes == (24 + 16 + 8) / 24 and plain.image_bytes == 24 << 10
    assert kib == {"pixels": 1, "depth": 2, "segmentation": 1}
    single = ReplayBuffer.estimate(1000, all_of_it.single, 4)
    assert ReplayBuffer.estimate(1000, all_of_it, 4) - single <= 8 * 1000  # where a transition's stack begins


def least_sides():
    """The page's table."""
    names, sides = (
        re.findall(r"\| (.+) \|$", line)[0].split(" | ")[1:]
        for line in PAGE.splitlines()
        if line.startswith(("| `encoder=` | `", "| least side"))
    )
    return [(name.strip("`"), int(side)) for name, side in zip(names, sides, strict=True)]


def test_every_encoder_of_images_is_in_the_table():
    assert {name for name, _ in least_sides()} == {*ENCODERS} - {"state", "pretrained"}


@pytest.mark.parametrize(("encoder", "side"), least_sides())
def test_an_encoder_takes_everything_from_its_least_side_on(encoder, side):
    seen = ["task.depth=true", "task.segmentation=true", "task.frame_stack=2"]
    words = ["task=lift", f"encoder={encoder}", *seen]
    check(compose([*words, f"task.size={side}"]))
    wide = f"task.cameras={{agentview: [{side}, {side + 3}], robot0_eye_in_hand: {side}}}"
    check(compose([*words, wide, "encoder.cameras=separate"]))
    with pytest.raises(CaliperError, match=f"smallest that works is {side}x{side}"):
        check(compose([*words, f"task.size={side - 1}"]))


def test_every_name_is_on_the_page():
    for name in (*LENGTHS, *NAMED_APPEARANCES):
        assert f"`{name}`" in PAGE
