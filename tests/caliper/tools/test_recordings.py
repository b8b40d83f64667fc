"""The verbs that take a recording: import, inspect, render, and a run's data.path."""

import subprocess

import imageio_ffmpeg
import numpy as np
import pytest

from caliper.cli import main
from caliper.config.compose import compose
from caliper.config.validate import check_task
from caliper.data.formats.recordings import open_recording
from caliper.data.formats.robomimic import read_dataset
from caliper.errors import CaliperError
from caliper.importing.describe import describe_recording
from caliper.importing.model.assets import robosuite_assets
from caliper.tools.film_recording import film_recording
from caliper.tools.import_recording import import_file
from caliper.training.data import find_data
from tests.recordings import edited, files  # noqa: F401  # fixtures

TASK = ["task=pick_place_can", "task.horizon=100", "task.size=32"]


@pytest.fixture(scope="module")
def can(files, tmp_path_factory):  # noqa: F811
    """The dataset of robomimic's can."""
    return import_file([str(files["robomimic030_can"]), str(tmp_path_factory.mktemp("can") / "can.hdf5")])


def test_import_prints_demos_table_and_file(files, tmp_path, capsys):  # noqa: F811
    out = tmp_path / "lift.hdf5"
    main(["import", str(files["robosuite141_lift"]), str(out)])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:3]] == ["demo_1", "demo_2", "demo_10"]
    assert "3 imported, 3 of them solved; 0 left out" in lines[3]
    assert lines[-1] == str(out)
    assert len(read_dataset(out).episodes) == 3


def test_import_does_not_replace_a_file_unasked(files, tmp_path, capsys):  # noqa: F811
    out = tmp_path / "lift.hdf5"
    out.write_text("mine")
    with pytest.raises(SystemExit):
        main(["import", str(files["robosuite141_lift"]), str(out)])
    assert f"{out} is there already" in capsys.readouterr().err and out.read_text() == "mine"
    main(["import", str(files["robosuite141_lift"]), str(out), "--overwrite"])
    assert len(read_dataset(out).episodes) == 3


def test_import_takes_its_options(edited, tmp_path, capsys):  # noqa: F811
    def spoil(file):
        file["data/demo_9/states"][0, 0] = np.nan

    words = [str(edited("robomimic030_can", spoil)), str(tmp_path / "o.hdf5")]
    import_file([*words, "--skip-bad", "--keep-length", "--filter", "train", "--task", "pick_place_can"])
    assert "demo_9: left out" in capsys.readouterr().out
    (episode,) = read_dataset(tmp_path / "o.hdf5").episodes
    assert len(episode) == 29


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "caliper: the following arguments are required: FILE; write: caliper import FILE"),
        (["x.hdf5", "--skip"], "unrecognized arguments: --skip; write: caliper import FILE"),
        (["nothing.hdf5"], "nothing.hdf5 does not exist"),
        (["FILE", "--assets", "nowhere"], "--assets nowhere is no folder"),
        (["FILE", "FILE"], "is the recording itself"),
    ],
)
def test_import_refuses_in_one_sentence(files, capsys, words, message):  # noqa: F811
    path = str(files["robosuite141_lift"])
    with pytest.raises(SystemExit):
        main(["import", *(path if word == "FILE" else word for word in words)])
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_inspect_describes_a_recording_without_importing(files, capsys):  # noqa: F811
    main(["inspect", str(files["robomimic030_can"])])
    found = capsys.readouterr().out
    for words in (
        "family          robomimic",
        "task            PickPlaceCan",
        "robosuite       1.4.1",
        "controller      OSC_POSE of robosuite 1.1 to 1.4, measured",
        "frequency       20 Hz",
        "demos           2, demo_9 to demo_16",
        "length          30 .. 108 steps",
        "states          71 numbers",
        "actions         7 numbers, up to 1",
        "rewards         1 of 2 demos are rewarded",
        "images          none",
        "train 2",
        "import          yes, into pick_place_can; demo_9: 108 steps",
    ):
        assert words in found, words


def test_inspect_compares_images_on_request(files, capsys):  # noqa: F811
    path = str(files["robomimic030_can_images"])
    main(["inspect", path, "--images"])
    assert "agentview_image: differ from ours by" in capsys.readouterr().out
    main(["inspect", path])
    found = capsys.readouterr().out
    assert "agentview_image 84x84" in found
    assert "differ from ours" not in found


@pytest.mark.parametrize(
    ("name", "controller", "verdict"),
    [
        ("mimicgen_square_d0", "1.1 to 1.4, measured", "yes, into nut_assembly_square; demo_0: 40 steps"),
        ("robosuite141_door", "1.1 to 1.4, measured", "yes, into door; demo_1: 40 steps"),
        ("teleop13_handover", "1.1 to 1.4, measured", "no: records TwoArmHandover, which has no scene here"),
        ("robosuite100_wipe", "1.0, measured", "no: records Wipe, which has no scene here"),
        ("libero_object", "which is not installed", "no: records Libero_Floor_Manipulation"),
    ],
)
def test_what_can_be_imported_and_what_cannot_is_described(files, name, controller, verdict):  # noqa: F811
    rows = describe_recording(open_recording(files[name])).splitlines()
    found = {row[2:18].strip(): row[18:] for row in rows[1:]}
    assert controller in found["controller"]
    assert found["import"].startswith(verdict)


def test_bad_demos_are_described_one_by_one(edited):  # noqa: F811
    def spoil(file):
        file["data/demo_2/actions"][0, 0] = np.inf

    found = describe_recording(open_recording(edited("robosuite141_lift", spoil)))
    assert "demo_2        unreadable: actions holds a value that is not finite" in found
    assert "yes, into lift" in found


def test_inspect_refuses_other_words(files, capsys):  # noqa: F811
    with pytest.raises(SystemExit):
        main(["inspect", str(files["robosuite141_lift"]), "--image"])
    assert "caliper inspect FILE [--images | --replay]" in capsys.readouterr().err


def test_inspect_takes_the_folder_of_meshes_that_it_asks_for(edited, tmp_path, capsys):  # noqa: F811
    def elsewhere(file):
        for name in file["data"]:
            xml = file[f"data/{name}"].attrs["model_file"]
            file[f"data/{name}"].attrs["model_file"] = xml.replace("/panda/meshes/link3.stl", "/own/l3.stl")

    path, folder = edited("robosuite141_lift", elsewhere), tmp_path / "assets"
    (folder / "own").mkdir(parents=True)
    installed = robosuite_assets() / "robots/panda/meshes/link3.stl"
    (folder / "own" / "l3.stl").write_bytes(installed.read_bytes())
    main(["inspect", str(path)])
    assert "own/l3.stl, which is not installed; name the folder" in capsys.readouterr().out
    main(["inspect", str(path), "--assets", str(folder)])
    said = capsys.readouterr().out
    assert "OSC_POSE of robosuite 1.1 to 1.4, measured" in said and "yes, into lift" in said
    with pytest.raises(SystemExit):
        main(["inspect", str(path), "--assets", str(folder / "none")])
    assert "must be a folder of meshes" in capsys.readouterr().err


def _frame(video, number):
    """One frame of a video, uint8 (h, w, 3)."""
    tool = imageio_ffmpeg.get_ffmpeg_exe()
    facts = imageio_ffmpeg.read_frames(str(video))
    size = next(facts)["size"]
    facts.close()
    words = [tool, "-v", "error", "-i", str(video), "-vf", f"select=eq(n\\,{number})", "-frames:v", "1"]
    raw = subprocess.run(
        [*words, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], capture_output=True, check=True
    )
    return np.frombuffer(raw.stdout, np.uint8).reshape(size[1], size[0], 3)


def test_render_films_a_recording_in_its_scene(files, tmp_path, capsys):  # noqa: F811
    out = tmp_path / "film.mp4"
    path = str(files["robomimic030_can_images"])
    main(["render", path, "--camera", "agentview", "--size", "64", "--episodes", "1", "--out", str(out)])
    assert capsys.readouterr().out.strip() == str(out)
    assert _frame(out, 0).std() > 20
    assert imageio_ffmpeg.count_frames_and_secs(str(out)) == (8, pytest.approx(0.4))  # 8 states at 20 Hz


def test_render_films_an_imported_dataset(can):
    out = film_recording([str(can), "--size", "32", "--episodes", "1", "--camera", "frontview"])
    assert out == can.with_name("can_frontview_1x32.mp4")
    assert imageio_ffmpeg.count_frames_and_secs(str(out))[0] == 98


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--camera", "top"], "no camera 'top'"),
        (["--episodes", "0"], "cannot be filmed"),
        (["--size", "8"], "cannot be filmed"),
        (["--depth"], "write: caliper render FILE"),
    ],
)
def test_render_refuses_what_cannot_be_filmed(files, words, message):  # noqa: F811
    with pytest.raises(CaliperError, match=message):
        film_recording([str(files["robomimic030_can_images"]), *words])


# ---- a run's data


def test_a_run_reads_several_files_and_imports_recordings(can, files, tmp_path, monkeypatch, capsys):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    config = compose([*TASK, f"data.path=[{files['robosuite152_can']},{can}]"])
    check_task(config)
    dataset = find_data(config)
    assert [len(e) for e in dataset.episodes] == [59, 97, 29]
    assert f"caliper import {files['robosuite152_can']} datasets/" in capsys.readouterr().out


def test_a_run_takes_a_filter(can):
    dataset = find_data(compose([*TASK, f"data.path={can}", "data.filter=50_percent"]))
    assert [len(e) for e in dataset.episodes] == [97]
    with pytest.raises(
        CaliperError, match=r"data\.filter=best: .* no such filter key; choose one of: 50_percent"
    ):
        find_data(compose([*TASK, f"data.path={can}", "data.filter=best"]))
    with pytest.raises(CaliperError, match=r"data\.filter=valid: .* lists no episode"):
        find_data(compose([*TASK, f"data.path={can}", "data.filter=valid"]))


def test_a_dataset_of_another_control_names_the_settings(can):
    with pytest.raises(CaliperError, match=r"as it is with task\.controller=osc_pose task\.control_freq=20"):
        find_data(compose([*TASK, "task.controller=osc_position", f"data.path={can}"]))


def test_prior_data_is_not_filtered(can):
    config = compose([*TASK, f"data.path={can}", "data.filter=train", f"data.prior.path={can}"])
    assert config.prior.data.filter is None


def test_no_path_at_all_is_refused():
    with pytest.raises(CaliperError, match="must be a file, or several"):
        check_task(compose([*TASK, "data.path=[]"]))


def test_several_paths_are_taken_letter_by_letter(tmp_path, monkeypatch):
    assert compose([*TASK, "data.path=[a b.hdf5, it's=3.hdf5]"]).dataset_paths() == [
        "a b.hdf5",
        "it's=3.hdf5",
    ]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "[a,b]").touch()  # a file may be called so
    assert compose([*TASK, "data.path=[a,b]"]).dataset_paths() == ["[a,b]"]
