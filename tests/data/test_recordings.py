"""Files of the family are read as they are, and no further than themselves."""

import json

import h5py
import numpy as np
import pytest

from caliper.data.formats.hdf5 import DIED, ForeignFile, UnreadableError
from caliper.data.formats.recordings import MAX_XML, is_foreign, open_recording, read_filters, read_images
from caliper.errors import CaliperError


@pytest.mark.parametrize(
    ("name", "family", "env", "version"),
    [
        ("robosuite100_lift", "robosuite", "Lift", "1.0.0"),
        ("robosuite141_lift", "robosuite", "Lift", "1.4.1"),
        ("robosuite152_can", "robosuite", "PickPlaceCan", "1.5.2"),
        ("robomimic030_can", "robomimic", "PickPlaceCan", "1.4.1"),
        ("teleop13_handover", "RoboTurk teleoperation", "TwoArmHandover", ""),
        ("mimicgen_square_d0", "MimicGen", "Square_D0", "1.4.1"),
        ("libero_object", "LIBERO", "Libero_Floor_Manipulation", ""),
    ],
)
def test_the_family_is_recognised(recordings, name, family, env, version):
    found = recordings[name]
    assert (found.family, found.env_name, found.version) == (family, env, version)
    assert all(demo.fault is None for demo in found.demos)
    assert is_foreign(found.path)


def test_robocasa_is_recognised_by_its_kitchens(edited):
    def kitchen(file):
        file["data/demo_1"].attrs["ep_meta"] = json.dumps({"layout_id": 3, "style_id": 1, "lang": "open"})

    assert open_recording(edited("robosuite141_lift", kitchen)).family == "robocasa"


def test_numbers_are_those_of_the_file(files, recordings):
    demo = recordings["robomimic030_can"].demos[0]
    with h5py.File(files["robomimic030_can"]) as file:
        assert np.array_equal(demo.states, file["data/demo_9/states"][()])
        assert np.array_equal(demo.actions, file["data/demo_9/actions"][()])
        assert np.array_equal(demo.rewards, file["data/demo_9/rewards"][()])
        assert demo.model == file["data/demo_9"].attrs["model_file"]


def test_demos_come_in_the_order_of_their_numbers(recordings):
    assert [d.name for d in recordings["robosuite141_lift"].demos] == ["demo_1", "demo_2", "demo_10"]


def test_the_model_may_lie_beside(files, recordings):
    beside = files["robosuite100_lift"].parent / "models" / "model_1.xml"
    assert recordings["robosuite100_lift"].demos[0].model == beside.read_text()


@pytest.mark.parametrize("name", ["../models/model_1.xml", "model_2.xml"])
def test_a_model_elsewhere_is_not_looked_for(edited, name):
    def elsewhere(file):
        file["data/demo_1"].attrs["model_file"] = name

    (demo,) = open_recording(edited("robosuite100_lift", elsewhere)).demos
    assert demo.fault is not None
    assert name in demo.fault


def test_attributes_may_be_bytes(edited):
    def encode(file):
        for group in (file["data"], file["data/demo_1"]):
            for key, value in list(group.attrs.items()):
                if isinstance(value, str):
                    group.attrs[key] = np.bytes_(value)

    found = open_recording(edited("robosuite141_lift", encode))
    assert (found.family, found.env_name, found.version) == ("robosuite", "Lift", "1.4.1")
    assert found.demos[0].model.startswith("<mujoco")


def test_both_styles_of_env_args_are_read(edited, recordings):
    config = recordings["robosuite141_lift"].settings["controller_configs"]
    part = {k: v for k, v in config.items() if k != "control_delta"}
    composite = {"type": "BASIC", "body_parts": {"right": part}}
    for version, controllers in (("1.4.1", config), ("1.5.1", composite)):
        kwargs = {"robots": ["Panda"], "controller_configs": controllers, "control_freq": 20}
        args = {"env_name": "Lift", "env_version": version, "type": 1, "env_kwargs": kwargs}

        def rewrite(file, args=args):
            for key in list(file["data"].attrs):
                del file["data"].attrs[key]
            file["data"].attrs["env_args"] = json.dumps(args)

        found = open_recording(edited("robosuite141_lift", rewrite))
        assert (found.family, found.env_name, found.version) == ("robomimic", "Lift", version)
        assert found.settings["controller_configs"] == controllers


def test_what_is_missing_is_named(recordings):
    assert recordings["mimicgen_square_d0"].missing == ["rewards", "dones"]
    assert "version of robosuite" in recordings["teleop13_handover"].missing
    assert recordings["robomimic030_can_images"].missing == [
        "18 of the 18 episodes of mask/train",
        "1 of the 2 episodes of mask/valid",
    ]


def test_filter_keys_are_read_and_an_empty_one_stays(edited, recordings):
    masks = recordings["robomimic030_can"].masks
    assert masks["train"] == ["demo_16", "demo_9"]
    assert masks["valid"] == []

    def empty(file):
        del file["mask/valid"]
        file["mask/valid"] = np.array([], dtype="S1")

    assert open_recording(edited("robomimic030_can", empty)).masks["valid"] == []


def test_filter_keys_become_places(files):
    assert read_filters(files["robomimic030_can"])["train"] == [0, 1]


def test_images_are_found_and_read(files, recordings):
    assert recordings["robomimic030_can_images"].images == {"agentview_image": (84, 84, 3)}
    rows = np.array([0, 7])
    found = read_images(files["robomimic030_can_images"], "demo_1", "agentview_image", rows)
    with h5py.File(files["robomimic030_can_images"]) as file:
        assert np.array_equal(found, file["data/demo_1/obs/agentview_image"][()][rows])


# ---- bad input


def _replaced(name, value):
    def change(file):
        del file[f"data/demo_1/{name}"]
        if value is not None:
            file[f"data/demo_1/{name}"] = value

    return change


def _absurd(file):
    del file["data/demo_1/states"]
    file["data/demo_1"].create_dataset("states", shape=(10**12, 32), dtype="f8", chunks=(64, 32))


def _hollow(file):
    del file["data/demo_1/states"]
    file["data/demo_1"].create_dataset("states", shape=(150_000, 1000), dtype="f8", chunks=(64, 1000))


def _group(file):
    del file["data/demo_1/states"]
    file.create_group("data/demo_1/states")


def _looped(file):
    del file["data/demo_1/states"]
    file["data/demo_1/states"] = h5py.SoftLink("/data/demo_1/states")


def _no_text(file):
    file["data/demo_1"].attrs["model_file"] = [1.0, 2.0]


def _rewarded(rewards):
    def change(file):
        file["data/demo_1/rewards"] = rewards

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_replaced("states", np.full((38, 32), np.nan)), "states holds a value that is not finite"),
        (_replaced("actions", np.full((38, 7), np.inf)), "actions holds a value that is not finite"),
        (_replaced("actions", np.zeros((37, 7))), "38 states but 37 actions"),
        (_replaced("actions", np.zeros(38)), r"actions has the shape \(38,\)"),
        (_replaced("states", np.full((38, 32), b"x")), "states holds text instead of numbers"),
        (_replaced("states", np.zeros((38, 32), "c16")), "states holds complex numbers instead of numbers"),
        (_replaced("states", np.zeros((38, 32), [("a", "f8")])), "states holds records instead of numbers"),
        (_replaced("actions", np.float64(3)), r"actions has the shape \(\)"),
        (_replaced("actions", h5py.Empty("f8")), "actions has no shape"),
        (_replaced("actions", np.zeros((38, 0))), r"absurd shape \(38, 0\)"),
        (_replaced("actions", np.zeros((38, 3000))), r"absurd shape \(38, 3000\)"),
        (_replaced("actions", None), "it has no actions"),
        (_absurd, r"states has the absurd shape \(1000000000000, 32\)"),
        (_hollow, "states claims 150000 rows, but the file does not hold their 1200000000 bytes"),
        (_group, "states is no array"),
        (_looped, "states is a soft link, and only what is in the file is read"),
        (_no_text, "its model_file is an array, not text"),
        (_rewarded(np.zeros(5)), "38 actions but 5 rewards"),
        (_rewarded(np.zeros((38, 2))), r"rewards has the absurd shape \(38, 2\)"),
        (_rewarded(np.full(38, b"no")), "rewards holds text instead of numbers"),
    ],
)
def test_an_unreadable_demo_says_why_and_leaves_the_others(edited, change, words):
    bad, good, _ = open_recording(edited("robosuite141_lift", change)).demos
    assert bad.states.size == 0
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(bad.fault)
    assert good.fault is None


def test_an_empty_demo_says_so(edited):
    def empty(file):
        _replaced("states", np.zeros((0, 32)))(file)
        _replaced("actions", np.zeros((0, 7)))(file)

    assert open_recording(edited("robosuite141_lift", empty)).demos[0].fault == "it has no step"


def test_recordings_before_1_0_are_named(edited):
    def old(file):
        _replaced("actions", None)(file)
        file["data/demo_1/jvels"] = np.zeros((38, 7))

    fault = open_recording(edited("robosuite141_lift", old)).demos[0].fault
    assert fault == "it has no actions; robosuite before 1.0 kept joint velocities instead"


@pytest.mark.parametrize("place", ["data/demo_1/states", "data/demo_1/obs", "data/demo_3", "mask"])
def test_links_to_other_files_are_refused(edited, files, place):
    def link(file):
        if place in file:
            del file[place]
        file[place] = h5py.ExternalLink(str(files["robosuite152_can"]), "/data/demo_3/states")

    path = edited("robosuite141_lift", link)
    with pytest.raises(CaliperError, match=f"{place} is a link to another file"):
        open_recording(path)


def test_storage_in_other_files_is_refused(edited, tmp_path):
    (tmp_path / "secret").write_bytes(bytes(38 * 32 * 8))

    def outside(file):
        del file["data/demo_1/states"]
        place = [(str(tmp_path / "secret"), 0, h5py.h5f.UNLIMITED)]
        file["data/demo_1"].create_dataset("states", shape=(38, 32), dtype="f8", external=place)

    fault = open_recording(edited("robosuite141_lift", outside)).demos[0].fault
    assert fault == "states has its bytes in another file, and only what is in the file is read"


def test_virtual_datasets_of_other_files_are_refused(edited, files):
    def virtual(file):
        del file["data/demo_1/states"]
        layout = h5py.VirtualLayout((38, 32), "f8")
        layout[:] = h5py.VirtualSource(str(files["robosuite141_lift"]), "data/demo_1/states", (38, 32))
        file["data/demo_1"].create_virtual_dataset("states", layout)

    fault = open_recording(edited("robosuite141_lift", virtual)).demos[0].fault
    assert fault == "states is a virtual dataset, and only what is in the file is read"


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "does not exist"), (b"no HDF5", "damaged or not an HDF5 file")],
)
def test_what_is_no_file_of_the_family_is_refused(tmp_path, content, words):
    if content is not None:
        (tmp_path / "x.hdf5").write_bytes(content)
    with pytest.raises(CaliperError, match=words):
        open_recording(tmp_path / "x.hdf5")
    assert not is_foreign(tmp_path / "x.hdf5")


def test_a_cut_file_is_refused(files, tmp_path):
    whole = files["robosuite141_lift"].read_bytes()
    (tmp_path / "cut.hdf5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CaliperError, match="damaged"):
        open_recording(tmp_path / "cut.hdf5")


def test_other_hdf5_is_refused(tmp_path):
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["x"] = 1
    with pytest.raises(CaliperError, match="no group 'data'"):
        open_recording(tmp_path / "other.hdf5")
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file.create_group("data").attrs["env_args"] = "{"
    with pytest.raises(CaliperError, match="no episode"):
        open_recording(tmp_path / "other.hdf5")
    with h5py.File(tmp_path / "other.hdf5", "r+") as file:
        file.create_group("data/demo_0")
    with pytest.raises(CaliperError, match="no JSON"):
        open_recording(tmp_path / "other.hdf5")


@pytest.mark.parametrize("text", ["[" * 100_000, "[1]", "7", "{", '{"env_name": '])
def test_a_description_that_is_no_json_object_is_refused(edited, text):
    def describe(file):
        file["data"].attrs["env_info"] = text

    with pytest.raises(CaliperError, match="the environment's description is no JSON"):
        open_recording(edited("robosuite141_lift", describe))


def test_a_demo_that_is_a_link_within_the_file_says_so(edited):
    def link(file):
        file["data/demo_3"] = h5py.SoftLink("/data/demo_1")

    faults = {d.name: d.fault for d in open_recording(edited("robosuite141_lift", link)).demos}
    assert faults.pop("demo_3") == "data/demo_3 is a soft link, and only what is in the file is read"
    assert set(faults.values()) == {None}


def test_a_model_larger_than_any_is_refused(edited):
    def grow(file):
        del file["data/demo_1"].attrs["model_file"]
        large = "<mujoco>" + " " * MAX_XML + "</mujoco>"
        file["data/demo_1"].attrs.create("model_file", large, dtype=h5py.string_dtype())

    bad, *others = open_recording(edited("robosuite141_lift", grow)).demos
    assert bad.fault == "its model_file is longer than any text, not text"
    assert all(demo.fault is None for demo in others)


def test_a_model_of_several_megabytes_is_read(edited):
    def grow(file):
        large = file["data/demo_1"].attrs["model_file"] + " " * (5 << 20)
        file["data/demo_1"].attrs.create("model_file", large, dtype=h5py.string_dtype())

    assert len(open_recording(edited("robosuite141_lift", grow)).demos[0].model) > 5 << 20


def test_fewer_images_than_steps_are_named(edited, files):
    def cut(file):
        kept = file["data/demo_1/obs/agentview_image"][:3]
        del file["data/demo_1/obs/agentview_image"]
        file["data/demo_1/obs/agentview_image"] = kept

    path = edited("robomimic030_can_images", cut)
    with pytest.raises(CaliperError, match=r"demo_1: its agentview_image have the shape \(3, 84, 84, 3\)"):
        read_images(path, "demo_1", "agentview_image", np.array([0, 7]))


def test_a_file_whose_reader_dies_is_refused_as_a_whole(files, monkeypatch):
    def die(self, at):
        self._process.end()
        self.ended = True
        raise UnreadableError(f"can't be used: {DIED}")

    monkeypatch.setattr(ForeignFile, "array", die)
    with pytest.raises(CaliperError, match=r"demo\.hdf5 can't be used: the HDF5 library crashed on it"):
        open_recording(files["robosuite141_lift"])


def test_every_kind_of_damage_is_a_sentence(files, tmp_path):
    """Bytes of a real file, overwritten here and there: each copy opens or is refused, and nothing hangs."""
    whole, generator = files["robosuite141_lift"].read_bytes(), np.random.default_rng(0)
    path = tmp_path / "spoiled.hdf5"
    refused = 0
    for _ in range(12):
        spoiled = bytearray(whole)
        for at in generator.integers(0, 8192, 40):  # where the structure is
            spoiled[at] = generator.integers(256)
        path.write_bytes(spoiled)
        try:
            faults = [demo.fault for demo in open_recording(path).demos]
        except CaliperError as error:
            refused += 1
            faults = [str(error)]
        assert all(fault is None or (fault and "\n" not in fault) for fault in faults)
    assert refused
