"""Recordings become datasets, right to the bit where they can be, or are refused in one sentence."""

import json
import re
import xml.etree.ElementTree as ET
from importlib.metadata import version

import h5py
import numpy as np
import pytest
import torch

from caliper.config.build import installed
from caliper.config.compose import compose
from caliper.data.dataset import Dataset
from caliper.data.formats.recordings import open_recording, read_filters
from caliper.data.formats.robomimic import read_dataset
from caliper.envs.robot.robots import robot_facts
from caliper.envs.sim import task_scene
from caliper.envs.tasks import TASKS, make_task
from caliper.errors import CaliperError
from caliper.importing.demo import Importer, Options
from caliper.importing.importer import default_out, import_recording, ready, train_command
from caliper.importing.scene import SceneTrial
from caliper.importing.tasks import find_task
from caliper.rollout.collect import collect


def open_loop(path) -> list[int | None]:
    """The step at which each episode's actions alone, from its first state, solve the task; None if never.

    An episode's last action is repeated for five steps.
    """
    dataset = read_dataset(path)
    env = SceneTrial(dataset.meta.task, dataset.meta.controller, dataset.meta.control_freq).env
    state, nq, n = env.state_dict(), env.engine.model.nq, len(dataset.episodes)
    for name in ("ctrl", "warmstart", "closing", "steps"):
        state[name].zero_()
    first = torch.as_tensor(np.stack([e.states[0] for e in dataset.episodes]))
    state["qpos"][:n], state["qvel"][:n] = first[:, 1 : 1 + nq], first[:, 1 + nq :]
    state["posture"][:] = torch.tensor(robot_facts("panda").posture)
    env.load_state_dict(state)
    solved: list[int | None] = [None] * n
    for t in range(max(len(e) for e in dataset.episodes) + 5):
        action = torch.zeros(env.num_envs, env.action_dim, dtype=torch.float64)
        for i, episode in enumerate(dataset.episodes):
            action[i] = torch.as_tensor(episode.actions[min(t, len(episode) - 1)])
        success = env.step(action).success
        for i in range(n):
            if solved[i] is None and success[i]:
                solved[i] = t + 1
    return solved


def reports(path):
    with h5py.File(path) as file:
        names = sorted(file["data"], key=lambda name: int(name[5:]))
        return [json.loads(file["data"][name].attrs["imported"]) for name in names]


# ---- the real files


def test_lift_of_1_4_is_solved_open_loop_at_the_recorded_steps(imported):
    path, said = imported("robosuite141_lift")
    assert [len(e) for e in read_dataset(path).episodes] == [27, 32, 30]
    assert open_loop(path) == [27, 32, 30]
    assert said[0].startswith("demo_1: 38 steps, 20 Hz, robosuite 1.1 to 1.4; solved at 27; one step ")
    for report in reports(path):
        assert report["own_error"] < 1e-7
        assert report["arm_error"] < 2e-5
        assert report["clipped"] == 1  # the first step, which aims from the rest posture


@pytest.mark.parametrize(
    ("name", "task", "parked", "posture"),
    [
        ("robosuite141_stack", "stack", [], "rest"),
        ("robosuite141_door", "door", [], "rest"),
        ("robosuite141_nut", "nut_assembly_round", ["SquareNut"], "rest"),
        ("robosuite141_cereal", "pick_place_cereal", ["Bread", "Can", "Milk"], "rest"),
        ("mimicgen_square_d0", "nut_assembly_square", ["RoundNut"], "start"),
    ],
)
def test_every_task_with_a_scene_is_imported_into_it(imported, name, task, parked, posture):
    """Random actions, or the first steps of a demo: what each does is what was recorded, here too."""
    path, _ = imported(name)
    assert read_dataset(path).meta.task == task
    (report,) = reports(path)
    assert (report["dialect"], report["posture"]) == ("1.1 to 1.4", posture)
    assert report["parked"] == parked
    assert report["arm_error"] < 2e-6
    assert report["object_error"] < 1e-3
    assert report["notes"] == []
    assert report["solved_at"] is None


def test_a_door_stands_where_the_files_own_model_has_it(imported, recordings):
    """Its frame's pose is in no state; ours keeps it there, as seven numbers at the end."""
    path, _ = imported("robosuite141_door")
    frame = ET.fromstring(recordings["robosuite141_door"].demos[0].model).find(".//body[@name='Door_main']")
    said = [float(x) for key in ("pos", "quat") for x in frame.get(key).split()]
    (episode,) = read_dataset(path).episodes
    assert np.allclose(episode.states[:, -7:], said, atol=1e-6)
    assert np.ptp(episode.states[:, -7:], axis=0).max() == 0


def test_an_open_door_is_seen_on_the_states(edited, tmp_path):
    def opened(file):
        file["data/demo_1/states"][30:, 1 + 9] = 0.31  # the hinge comes after the arm and the fingers

    path = import_recording(
        edited("robosuite141_door", opened), tmp_path / "o.hdf5", Options(), lambda _: None
    )
    assert reports(path)[0]["solved_at"] == 30


@pytest.mark.slow
def test_lift_of_1_0_is_solved_open_loop_at_the_recorded_step(imported):
    """Its arm has neither armature nor friction, and stands a millimetre higher."""
    path, said = imported("robosuite100_lift")
    assert open_loop(path) == [401]
    (report,) = reports(path)
    assert (report["dialect"], report["solved_at"], report["steps"]) == ("1.0", 401, 412)
    assert report["own_error"] < 1e-9
    assert 1e-4 < report["arm_error"] < 2e-3
    assert "the hand stands 1.0 mm elsewhere" in said[0]
    assert "warning: the arm moves differently here" in said[0]


def test_can_of_robomimic_is_cut_at_its_first_success(imported, recordings):
    path, said = imported("robomimic030_can")
    whole, part = read_dataset(path).episodes
    demo = recordings["robomimic030_can"].demos[0]
    assert (len(demo.actions), len(whole), whole.success, whole.terminated) == (108, 97, True, True)
    assert whole.rewards.tolist() == [0.0] * 96 + [1.0]
    assert int(np.argmax(demo.rewards)) + 1 == 97  # a reward belongs to the state that follows
    assert np.array_equal(whole.final_state[1:8], demo.states[97, 1:8])
    assert not any("its rewards say" in line for line in said)
    assert (len(part), part.success, part.terminated, part.rewards.sum()) == (29, False, False, 0)
    assert "demo_16: 30 steps, 20 Hz, robosuite 1.1 to 1.4; never solved" in said[1]
    assert open_loop(path)[0] in (96, 97, 98)
    assert reports(path)[0]["parked"] == ["Bread", "Cereal", "Milk"]


def test_states_are_those_of_the_file_by_name(imported, recordings):
    """The can's scene has the robot, the fingers and the can: 7, 2, 7 positions and 7, 2, 6 velocities."""
    path, _ = imported("robomimic030_can")
    ours, theirs = read_dataset(path).episodes[0].states, recordings["robomimic030_can"].demos[0].states
    model = task_scene("pick_place_can").model
    can = 1 + model.jnt_qposadr[model.joint("Can_joint0").id]
    assert ours.shape[1] == 32
    assert np.array_equal(ours[:, :10], theirs[:97, :10])
    assert np.array_equal(ours[:, can : can + 7], theirs[:97, 31:38])


def test_actions_of_1_5_stay_as_they_are(imported, recordings):
    path, _ = imported("robosuite152_can")
    (episode,) = read_dataset(path).episodes
    recorded = recordings["robosuite152_can"].demos[0].actions
    assert np.array_equal(episode.actions[1:], np.clip(recorded[1:59], -1, 1).astype(np.float32))
    assert not np.array_equal(
        episode.actions[0], recorded[0].astype(np.float32)
    )  # aims from the rest posture
    assert reports(path)[0]["dialect"] == "1.5"


def test_actions_of_1_0_turn_the_other_way(imported, recordings):
    """Where a step turns, its goal starts from the achieved pose: the negated rotation."""
    path, _ = imported("robosuite100_lift")
    (episode,) = read_dataset(path).episodes
    recorded = recordings["robosuite100_lift"].demos[0].actions[:401]
    turns = np.abs(recorded[:, 3:6]).max(1) > 0
    turns[0] = False
    assert turns.sum() > 20
    assert np.allclose(episode.actions[turns, :3], recorded[turns, :3], atol=1e-6)
    assert np.allclose(episode.actions[turns, 3:6], -recorded[turns, 3:6], atol=1e-6)
    still = ~turns & (np.arange(401) > 0)
    assert np.abs(episode.actions[still, 3:6]).max() > 1e-3  # the goal that was kept


def test_the_dataset_says_where_it_comes_from(imported, files):
    path, _ = imported("robomimic030_can")
    meta = read_dataset(path).meta
    now, _ = installed(meta)
    assert meta == now
    assert (meta.task, meta.controller, meta.control_freq, meta.horizon) == (
        "pick_place_can",
        "osc_pose",
        20,
        97,
    )
    assert meta.mujoco_version == version("mujoco")
    with h5py.File(path) as file:
        origin = json.loads(file["data"].attrs["imported"])
    assert (origin["family"], origin["env_name"], origin["version"]) == ("robomimic", "PickPlaceCan", "1.4.1")
    import hashlib

    assert origin["sha256"] == hashlib.sha256(files["robomimic030_can"].read_bytes()).hexdigest()
    assert [r["name"] for r in reports(path)] == ["demo_9", "demo_16"]


def test_filter_keys_survive(imported):
    path, said = imported("robomimic030_can")
    assert read_filters(path)["train"] == [0, 1]
    assert read_filters(path)["valid"] == []
    with h5py.File(path) as file:
        assert file["mask/train"][()].tolist() == [b"demo_1", b"demo_0"]
        assert file["mask/valid"].shape == (0,)
    assert "train 2" in said[-2]


def test_the_last_line_is_the_command_that_trains(imported):
    path, said = imported("robosuite141_lift")
    words = said[-1].split()
    assert words[:3] == ["train", "caliper", "train"]
    config = compose(words[3:])
    dataset = read_dataset(path)
    assert config.data.path == str(path)
    assert config.task.horizon == 40  # a quarter more than the 32 steps of the longest
    assert (config.task.controller, config.task.control_freq) == ("osc_pose", 20)
    assert train_command(path, dataset.meta).split()[2:] == words[3:]


# ---- options


def test_filter_and_keep_length(files, tmp_path):
    out = import_recording(
        files["robomimic030_can"],
        tmp_path / "out.hdf5",
        Options(filter="50_percent_train", keep_length=True),
        lambda _: None,
    )
    with h5py.File(files["robomimic030_can"]) as file:
        listed = [n.decode() for n in file["mask/50_percent_train"][()]]
    assert [r["name"] for r in reports(out)] == [n for n in ("demo_9", "demo_16") if n in listed]
    (episode,) = read_dataset(out).episodes
    assert (len(episode), episode.success, episode.rewards.sum()) == (107, True, 1)


def test_an_unknown_filter_lists_those_there_are(files, tmp_path):
    with pytest.raises(CaliperError, match=r"no filter 'best'; choose one of: 50_percent, .*valid"):
        import_recording(files["robomimic030_can"], tmp_path / "out.hdf5", Options(filter="best"))
    with pytest.raises(CaliperError, match="no filter 'train'; it has none"):
        import_recording(files["robosuite141_lift"], tmp_path / "out.hdf5", Options(filter="train"))
    with pytest.raises(CaliperError, match="filter 'valid' names no demo"):
        import_recording(files["robomimic030_can"], tmp_path / "out.hdf5", Options(filter="valid"))
    assert list(tmp_path.iterdir()) == []


def _spoiled(file):
    states = file["data/demo_2/states"][()]
    states[3, 5] = np.nan
    file["data/demo_2/states"][()] = states


def test_a_bad_demo_stops_the_import_or_is_left_out(edited, tmp_path):
    path, out = edited("robosuite141_lift", _spoiled), tmp_path / "out.hdf5"
    with pytest.raises(
        CaliperError, match=r"demo_2 cannot be imported: states holds a value that is not fin"
    ):
        import_recording(path, out, Options(), lambda _: None)
    assert not out.exists()
    said: list[str] = []
    import_recording(path, out, Options(skip_bad=True), said.append)
    assert [r["name"] for r in reports(out)] == ["demo_1", "demo_10"]
    assert said[1] == "demo_2: left out: states holds a value that is not finite"
    assert "demo_2: states holds a value that is not finite" in said[-2]
    with h5py.File(out) as file:
        assert list(json.loads(file["data"].attrs["imported"])["left_out"]) == ["demo_2"]


def test_an_earlier_dataset_stays_when_the_import_fails(edited, tmp_path):
    out = tmp_path / "out.hdf5"
    out.write_bytes(b"mine")
    with pytest.raises(CaliperError):
        import_recording(edited("robosuite141_lift", _spoiled), out, Options(), lambda _: None)
    assert out.read_bytes() == b"mine"
    assert list(tmp_path.glob("*partial*")) == []


# ---- bad input


def _actions(width):
    def change(file):
        for name in file["data"]:
            old = file[f"data/{name}/actions"][()]
            del file[f"data/{name}/actions"]
            file[f"data/{name}/actions"] = np.resize(old, (len(old), width))

    return change


def _states(file):
    for name in file["data"]:
        old = file[f"data/{name}/states"][()]
        del file[f"data/{name}/states"]
        file[f"data/{name}/states"] = old[:, :31]


def _info(**changes):
    def change(file):
        info = json.loads(file["data"].attrs["env_info"])
        controller = info["controller_configs"]
        for key, value in changes.items():
            if key in controller or key in ("type", "impedance_mode"):
                controller[key] = value
            else:
                info[key] = value
        file["data"].attrs["env_info"] = json.dumps(info)

    return change


def _unknown_mesh(file):
    for name in file["data"]:
        xml = file[f"data/{name}"].attrs["model_file"]
        file[f"data/{name}"].attrs["model_file"] = xml.replace("/panda/meshes/link3.stl", "/panda9/x/l3.stl")


def _no_model(file):
    for name in file["data"]:
        del file[f"data/{name}"].attrs["model_file"]
    _states(file)


def _upside_down(file):
    """Actions that are not those of the states."""
    for name in file["data"]:
        actions = file[f"data/{name}/actions"][()]
        file[f"data/{name}/actions"][()] = -actions[::-1]


def _floating(file):
    """The cube rests 12 mm above the table, as a larger one under the same mesh's name would."""
    for name in file["data"]:
        file[f"data/{name}/states"][5:, 12] += 0.012


def _cube(size):
    """Another cube in every model, at rest on the table as ever."""

    def change(file):
        for name in file["data"]:
            xml = file[f"data/{name}"].attrs["model_file"]
            sizes = re.search(r'<geom name="cube_g0"[^>]* size="([^"]*)"', xml)[1]
            file[f"data/{name}"].attrs["model_file"] = xml.replace(f'size="{sizes}"', f'size="{size}"')

    return change


def _slow(file):
    for name in file["data"]:
        file[f"data/{name}/states"][:, 0] *= 20 / 17


def _solved(file):
    for name in file["data"]:
        states = file[f"data/{name}/states"][()]
        states[:, 12] = 0.9
        file[f"data/{name}/states"][()] = states


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_actions(14), "demo_1 cannot be imported: its actions have 14 numbers; .* take 7"),
        (_actions(6), "demo_1 cannot be imported: its actions have 6 numbers; .* take 7"),
        (_states, "demo_1 cannot be imported: its states have 31 numbers, its model 32"),
        (_no_model, "demo_1 cannot be imported: it has no model_file, and its states of 31 numbers"),
        (_unknown_mesh, r"demo_1 cannot be imported: its model collides .*l3\.stl, which is not installed"),
        (_info(control_delta=False), "actions are absolute poses"),
        (_info(impedance_mode="variable"), "impedance_mode variable"),
        (_info(type="JOINT_VELOCITY"), "its controller is JOINT_VELOCITY"),
        (_info(kp=80), "stiffness 80"),
        (_info(robots=["Sawyer"]), "recorded with Sawyer; the scenes have one Panda"),
        (_info(robots=["Panda", "Panda"]), "recorded with Panda and Panda"),
        (
            _info(env_name="Coffee_D0"),
            "records Coffee_D0, which has no scene here; these have: Lift .lift., PickPlaceCan",
        ),
        (_upside_down, "no known version of robosuite's controller does with its actions"),
        (_floating, r"the scene's object is another of the same name: it ends \d+ mm elsewhere"),
        (
            _cube("0.05 0.02 0.02"),
            "the scene's cube is another of the same name: its half sides differ by 29 mm",
        ),
        (_slow, "its 17 control steps per second do not divide"),
        (_solved, "solved in its first state"),
    ],
)
def test_what_cannot_be_imported_is_refused_in_one_sentence(edited, tmp_path, change, words):
    path, out = edited("robosuite141_lift", change), tmp_path / "out.hdf5"
    with pytest.raises(CaliperError, match=words) as caught:
        import_recording(path, out, Options(), lambda _: None)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert not out.exists()


@pytest.mark.parametrize(
    "name",
    [
        "robosuite100_wipe",
        "robosuite100_pick_place",
        "teleop13_handover",
        "libero_object",
    ],
)
def test_tasks_without_a_scene_are_refused_with_those_that_have_one(recordings, name):
    env = recordings[name].env_name
    with pytest.raises(CaliperError, match=f"records {env}, which has no scene here; these have: Lift "):
        find_task(recordings[name])


def test_the_list_of_tasks_decides(recordings, monkeypatch):
    monkeypatch.setattr(TASKS["pick_place_tray"], "recorded_as", ("Wipe",))
    assert find_task(recordings["robosuite100_wipe"]) == "pick_place_tray"
    assert find_task(recordings["robosuite141_lift"]) == "lift"


def test_a_named_task_is_tried_and_refused_if_its_objects_are_others(recordings):
    with pytest.raises(CaliperError, match="--task sweeping is unknown; choose one of: lift"):
        find_task(recordings["robosuite141_lift"], "sweeping")
    importer = Importer(recordings["robosuite100_pick_place"], Options(task="pick_place_can"))
    with pytest.raises(CaliperError, match=r"its (Milk|Bread|Cereal) takes part"):
        importer.convert(importer.demos[0])


def test_without_a_model_the_scenes_own_is_taken_if_it_fits(edited, tmp_path):
    def bare(file):
        for name in file["data"]:
            del file[f"data/{name}"].attrs["model_file"]

    out = import_recording(edited("robosuite141_lift", bare), tmp_path / "o.hdf5", Options(), lambda _: None)
    assert [len(e) for e in read_dataset(out).episodes] == [27, 32, 30]


def test_actions_beyond_the_range_are_clipped_as_robosuite_did(edited, tmp_path):
    def beyond(file):
        actions = file["data/demo_1/actions"][()]
        full = np.abs(actions) == 1
        full[:, 6] = False
        file["data/demo_1/actions"][()] = np.where(full, 3.75 * actions, actions)

    said: list[str] = []
    path = edited("robosuite141_lift", beyond)
    with h5py.File(path) as file:
        share = (np.abs(file["data/demo_1/actions"]) > 1).any(1).mean()
    out = import_recording(path, tmp_path / "o.hdf5", Options(), said.append)
    assert f"{share:.0%} of its actions left the range" in said[0]
    assert [len(e) for e in read_dataset(out).episodes] == [27, 32, 30]


def test_a_file_that_says_the_wrong_version_is_told_so(edited):
    def wrong(file):
        file["data"].attrs["repository_version"] = "1.0.0"

    recording = open_recording(edited("robosuite141_lift", wrong))
    importer = Importer(recording, Options())
    report = importer.convert(importer.demos[0]).report
    assert report.dialect == "1.1 to 1.4"
    assert "the file says robosuite 1.0.0" in report.notes


# ---- our own


def exported(dataset: Dataset, path) -> None:
    """A dataset as robosuite 1.5 would have written it, its last state as one more row."""
    model = make_task(dataset.meta.task).compose().to_xml()
    part = {
        "type": "OSC_POSE",
        "input_type": "delta",
        "input_ref_frame": "base",
        "kp": 150,
        "damping_ratio": 1,
    }
    part |= {"output_max": [0.05] * 3 + [0.5] * 3, "output_min": [-0.05] * 3 + [-0.5] * 3}
    if dataset.meta.controller == "osc_position":
        part |= {"type": "OSC_POSITION", "output_max": [0.05] * 3, "output_min": [-0.05] * 3}
    info = {"robots": "Panda", "controller_configs": {"type": "BASIC", "body_parts": {"right": part}}}
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env"] = TASKS[dataset.meta.task].recorded_as[0]
        data.attrs["repository_version"] = "1.5.2"
        data.attrs["env_info"] = json.dumps(info)
        for i, episode in enumerate(dataset.episodes):
            demo = data.create_group(f"demo_{i + 1}")
            demo.attrs["model_file"] = model
            demo["states"] = np.vstack([episode.states, episode.final_state])
            demo["actions"] = np.vstack([episode.actions, np.zeros_like(episode.actions[:1])])


@pytest.mark.parametrize(("controller", "freq"), [("osc_pose", 20), ("osc_position", 10)])
def test_our_own_dataset_comes_back_bit_by_bit(tmp_path, controller, freq):
    words = [f"task.controller={controller}", f"task.control_freq={freq}", "task.horizon=45"]
    config = compose(
        ["task=lift", *words, "data.episodes=3", "data.num_envs=3", "data.mixture=[[1.0,0.1,0.0]]"]
    )
    ours = read_dataset(collect(config, tmp_path / "ours.hdf5"))
    exported(ours, tmp_path / "raw.hdf5")
    path = import_recording(tmp_path / "raw.hdf5", tmp_path / "back.hdf5", Options(), lambda _: None)
    back = read_dataset(path)
    assert any(e.success for e in ours.episodes)
    assert back.mismatches(ours.meta) == []
    for a, b in zip(ours.episodes, back.episodes, strict=True):
        for name in ("states", "final_state", "actions", "rewards"):
            assert np.array_equal(getattr(a, name), getattr(b, name)), name
        assert (a.terminated, a.success) == (b.terminated, b.success)
    for report in reports(path):
        assert (report["dialect"], report["posture"]) == ("1.5", "start")
        assert report["arm_error"] < 1e-9


def test_a_dataset_of_ours_needs_no_import(imported, tmp_path):
    path, _ = imported("robosuite141_lift")
    assert ready(path) == path
    with pytest.raises(CaliperError, match="a dataset of Caliper's already"):
        import_recording(path, tmp_path / "again.hdf5", Options())


def test_a_recording_is_imported_on_the_way_once(files, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    out = ready(files["robosuite152_can"])
    assert out == default_out(files["robosuite152_can"], Options())
    assert out.is_file()
    assert f"caliper import {files['robosuite152_can']} {out}" in capsys.readouterr().out
    assert ready(files["robosuite152_can"]) == out
    assert "has been imported" in capsys.readouterr().out


# ---- what nobody writes by accident


def _xml(old, new):
    def change(file):
        for name in file["data"]:
            xml = file[f"data/{name}"].attrs["model_file"]
            assert old in xml
            file[f"data/{name}"].attrs["model_file"] = xml.replace(old, new, 1)

    return change


def _one_step(file):
    for name in ("states", "actions"):
        kept = file[f"data/demo_1/{name}"][:1]
        del file[f"data/demo_1/{name}"]
        file[f"data/demo_1/{name}"] = kept


def _thrown(file):
    file["data/demo_1/states"][5, 1] = 1e9


def _aged(file):
    for name in file["data"]:
        file[f"data/{name}/states"][:, 0] += 1e15


def _absurd(key):
    """The largest numbers that are finite, in a file that tells nothing else."""

    def change(file):
        for name in file["data"]:
            file[f"data/{name}/{key}"][3, 2] = 1e308

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_one_step, "demo_1 cannot be imported: it has one step"),
        (_thrown, "demo_1 cannot be imported: "),
        (_aged, r"demo_1 cannot be imported: states reach 1e\+15, which no robot does"),
        (_absurd("states"), "demo_1 cannot be imported: "),
        (
            _xml("<worldbody>", '<option timestep="1e-7"/><worldbody>'),
            "demo_1 cannot be imported: its physics steps by 1e-07 s, robosuite's by 0.002 s",
        ),
        (
            _xml("<asset>", '<asset><hfield name="h" file="/etc/passwd" size="1 1 1 1"/>'),
            "demo_1 cannot be imported: its model has a <hfield>, which reaches out of the file",
        ),
        (_info(input_max=-1), "its controller's input_min -1 is not below its input_max"),
        (_info(kp=None), "its controller has None where 6 numbers belong"),
        (_info(robots=7), "recorded with 7; the scenes have one Panda"),
        (
            _info(controller_configs={"type": "WHOLE_BODY_IK", "body_parts": {}}),
            "its controller is WHOLE_BODY_IK; only the arm's part of BASIC",
        ),
    ],
)
def test_hostile_recordings_are_refused_in_one_sentence(edited, tmp_path, change, words):
    path, out = edited("robosuite141_lift", change), tmp_path / "out.hdf5"
    with pytest.raises(CaliperError, match=words) as caught:
        import_recording(path, out, Options(), lambda _: None)
    assert "\n" not in str(caught.value)
    assert not out.exists()


def test_odd_attributes_rewards_and_filters_are_taken(edited):
    def odd(file):
        data = file["data"]
        data.attrs["env"] = np.bytes_(data.attrs["env"])
        data.attrs["env_info"] = np.array([data.attrs["env_info"].encode()])
        demo = data["demo_1"]
        demo.attrs["model_file"] = "\ufeff" + demo.attrs["model_file"]
        demo["rewards"] = np.zeros((len(demo["actions"]), 1), bool)
        file.create_group("mask/nested/deeper")
        file["mask/gone"] = np.array([b"demo_99", b"demo_1"])

    recording = open_recording(edited("robosuite141_lift", odd))
    assert recording.env_name == "Lift"
    assert recording.demos[0].fault is None
    assert recording.demos[0].rewards.shape == (len(recording.demos[0].actions),)
    assert recording.masks == {"gone": ["demo_1"]}
    assert "1 of the 2 episodes of mask/gone" in recording.missing
    assert any(name.startswith("mask/nested, unreadable") for name in recording.missing)
