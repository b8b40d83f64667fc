"""Files of strangers are opened elsewhere, under limits, and nothing is read that has not been looked at."""

import fcntl
import os
import resource
import subprocess
import zlib

import h5py
import numpy as np
import pytest

from caliper.data.formats import hdf5
from caliper.data.formats.hdf5 import ForeignFile, UnreadableError

pytestmark = pytest.mark.filterwarnings("ignore::h5py.h5py_warnings.H5pyDeprecationWarning")


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        file["data/x"] = np.arange(6.0).reshape(2, 3)
        file["data"].attrs.update({"text": "grün\n", "n": 7, "x": np.float32(0.5), "yes": True})
    return path


def put(path, **made):
    with h5py.File(path, "a") as file:
        file.pop("data/x", None)
        file.create_dataset("data/x", **made)


def refusal(path, at="data/x"):
    with ForeignFile(path) as file, pytest.raises(UnreadableError) as refused:
        file.array(at)
    return str(refused.value)


def test_names_attributes_and_arrays_come_back(path):
    with ForeignFile(path) as file:
        assert file.names() == {"data": "group"} and file.names("data") == {"x": "array"}
        assert file.attributes("data") == {
            "text": ("text", "grün\n"), "n": ("int", 7), "x": ("float", 0.5), "yes": ("bool", True)
        }  # fmt: skip
        assert file.array("data/x").tolist() == [[0, 1, 2], [3, 4, 5]]
        with pytest.raises(UnreadableError, match=r"can't be used: there is no data/y"):
            file.array("data/y")
        assert file.array("/data/x").dtype == np.float64  # a refusal is not the end


@pytest.mark.parametrize(
    "made",
    [
        {"data": np.arange(6, dtype=">f8")},
        {"data": np.arange(6, dtype="f2")},
        {"data": np.arange(6, dtype="u1")},
        {"data": np.array([True, False])},
        {"data": np.float32(3)},
        {"data": np.zeros((0, 4))},
        {"data": np.arange(60_000.0).reshape(-1, 6), "compression": "gzip", "shuffle": True},
        {"data": np.zeros((500, 50)), "compression": "lzf", "fletcher32": True},
        {"data": np.arange(2_000_000.0)},  # more than a pipe holds
    ],
)
def test_plain_numbers_of_every_packing_are_read(path, made):
    put(path, **made)
    with ForeignFile(path) as file:
        array = file.array("data/x")
    assert np.array_equal(array, made["data"]) and array.shape == np.shape(made["data"])


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"shape": (10**12, 3), "dtype": "f8", "chunks": (1024, 3)}, "claims 1000000000000 rows, but the"),
        ({"shape": (10**6,), "dtype": "f8", "chunks": (1024,), "compression": 1}, "does not hold"),
        ({"shape": (100,), "dtype": "f8"}, "does not hold their 800 bytes"),
        ({"data": "text"}, "holds text or references instead of numbers"),
        ({"data": np.array([b"x"])}, "holds text instead of numbers"),
        ({"data": np.zeros(3, [("a", "f8")])}, "holds records instead of numbers"),
        ({"data": np.zeros(3, complex)}, "holds complex numbers"),
        ({"shape": (3,), "dtype": h5py.vlen_dtype(float)}, "instead of numbers"),
        ({"data": h5py.Empty("f8")}, "has no value"),
        ({"data": np.zeros((1,) * 9)}, "has 9 axes"),
        ({"shape": (6,), "dtype": "u1", "external": [("/etc/passwd", 0, 6)]}, "its bytes in another file"),
    ],
)  # fmt: skip
def test_what_is_not_plain_numbers_in_this_file_is_refused(path, made, said):
    put(path, **made)
    assert said in refusal(path)


def test_links_are_not_followed(path, tmp_path):
    other = tmp_path / "other.hdf5"
    put(other, data=np.ones(6))
    with h5py.File(path, "a") as file:
        file["data/soft"] = h5py.SoftLink("/data/x")
        file["data/loop"] = h5py.SoftLink("/data/loop")
        file["data/other"] = h5py.ExternalLink(str(other), "data/x")
        file["data/through"] = h5py.ExternalLink(str(other), "data")
        layout = h5py.VirtualLayout((6,), "f8")
        layout[:] = h5py.VirtualSource(str(other), "data/x", shape=(6,))
        file.create_virtual_dataset("data/virtual", layout)
    assert "data/soft is a soft link, and only what is in the file is read" in refusal(path, "data/soft")
    assert "data/loop is a soft link" in refusal(path, "data/loop")
    assert "data/other is a link to another file" in refusal(path, "data/other")
    assert "data/through is a link to another file" in refusal(path, "data/through/x")
    assert "data/virtual is a virtual dataset" in refusal(path, "data/virtual")
    with ForeignFile(path) as file:
        assert file.names("data")["soft"] == "a soft link"


def test_attributes_of_other_kinds_are_named(path):
    with h5py.File(path, "a") as file:
        odd = {"bytes": np.bytes_(b"lift"), "array": [1, 2], "empty": h5py.Empty("f8"), "complex": 1j}
        odd |= {"one": np.array([b"lift"]), "texts": np.array([b"a", b"b"])}
        file["data"].attrs.update(odd)
    with ForeignFile(path) as file:
        found = file.attributes("data")
    assert {name: found[name] for name in odd} == {
        "bytes": ("other text", "lift"), "one": ("other text", "lift"), "texts": ("other", "an array"),
        "array": ("other", "an array"), "empty": ("other", "empty"),
        "complex": ("other", "a complex128"),
    }  # fmt: skip


def test_texts_and_shapes_come_back(path):
    with h5py.File(path, "a") as file:
        file["mask/fixed"] = np.array([b"demo_0", b"gr\xc3\xbcn"])
        file["mask/free"] = np.array([["a", "b"]], dtype=h5py.string_dtype())
        file["mask/none"] = np.array([], dtype="S1")
        file["mask/claims"] = np.zeros(3)
        file["mask"].create_dataset("hollow", (10**5,), "S8", chunks=(100,))
        file["mask"].create_dataset("vast", (10**5, 84, 84, 3), "u1", chunks=(1, 84, 84, 3))
    with ForeignFile(path) as file:
        assert file.texts("mask/fixed") == ["demo_0", "grün"]
        assert file.texts("mask/free") == ["a", "b"] and file.texts("mask/none") == []
        for name, said in (
            ("claims", "instead of text"),
            ("hollow", "does not hold"),
            ("vast", "instead of t"),
        ):
            with pytest.raises(UnreadableError, match=said):
                file.texts(f"mask/{name}")
        assert file.shape("mask/vast") == ("|u1", (10**5, 84, 84, 3))
        assert file.shape("data/x") == ("<f8", (2, 3))


def test_a_small_file_does_not_unfold_to_more_than_its_share(path):
    rows, columns = 140, 2**20  # 1.1 GiB
    with h5py.File(path, "a") as file:
        shape, chunks = (rows, columns), (1, columns)
        array = file.create_dataset("data/bomb", shape, "f8", chunks=chunks, compression="gzip")
        packed = zlib.compress(bytes(8 * columns))
        for row in range(rows):
            array.id.write_direct_chunk((row, 0), packed)
    assert path.stat().st_size < 2 << 20
    assert "data/bomb would unfold to 1.1 GiB, more than this file may" in refusal(path, "data/bomb")


def opening(path):
    with ForeignFile(path):
        pass


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n" + b"\xff" * 2000]
)
def test_what_is_not_hdf5_is_refused(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(UnreadableError, match=r"is damaged or not an HDF5 file \(.+\)"):
        opening(tmp_path / "x")


def test_pipes_folders_locked_and_unreadable_files_are_told_apart(path, tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    for odd, fault in ((tmp_path / "pipe", "is not a regular file"), (tmp_path, "is a folder, not a file")):
        with pytest.raises(UnreadableError, match=fault):
            opening(odd)
    with path.open("r+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(UnreadableError, match="is open for writing in another program; wait for it"):
            opening(path)
    monkeypatch.setattr(
        hdf5.Path, "open", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied"))
    )
    with pytest.raises(UnreadableError, match="cannot be read: Permission denied"):
        opening(path)


OPENED = "echo '{\"ready\": 1}'; echo '{\"open\": true}'; read line; "


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("sleep 30", "does not come to an end"),
        (OPENED + "sleep 30", "does not come to an end"),
        (OPENED + "kill -SEGV $$", "the HDF5 library crashed on it, or ran out of time or memory"),
        ("exit 1", "the HDF5 library crashed on it"),
        (OPENED + "echo nonsense", "its reader answers nonsense"),
        (OPENED + 'echo \'{"dtype": "O", "shape": [1]}\'', "its reader answers nonsense"),
        (OPENED + 'echo \'{"dtype": "<f8", "shape": [-1]}\'', "its reader answers nonsense"),
        (OPENED + 'echo \'{"dtype": "<f8", "shape": [1000000000000]}\'', "its reader answers nonsense"),
        (OPENED + 'echo \'{"dtype": "<f8", "shape": [100]}\'; echo short', "crashed on it"),
    ],
)
def test_whatever_becomes_of_the_process_is_one_sentence(path, tmp_path, monkeypatch, does, said):
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\n{does}\n")
    script.chmod(0o755)
    monkeypatch.setattr(hdf5.sys, "executable", str(script))
    monkeypatch.setattr(hdf5, "START_SECONDS", 2.0)
    monkeypatch.setattr(hdf5, "SECONDS", 0.5)
    with pytest.raises(UnreadableError, match=said), ForeignFile(path) as file:
        file.array("data/x")


def test_the_process_has_limits_and_ends_with_the_reading(path, monkeypatch):
    made = []

    class Noted(hdf5.Child):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(self._process)

    monkeypatch.setattr(hdf5, "Child", Noted)
    with ForeignFile(path) as file:
        file.names()  # by its answer all limits are set
        limits = {
            n: resource.prlimit(made[0].pid, getattr(resource, f"RLIMIT_{n}"))[n != "CPU"]
            for n in ("AS", "CPU", "FSIZE")  # memory and files can't be had back; time grows, see below
        }
        assert limits["AS"] < 6 << 30 and limits["CPU"] <= 8 and limits["FSIZE"] == 0
        open_files = os.listdir(f"/proc/{made[0].pid}/fd")
        assert resource.prlimit(made[0].pid, resource.RLIMIT_NOFILE)[0] < len(open_files)  # no more of them
        for _ in range(400):  # a sound file of thousands of episodes takes as many requests
            file.names()
        later = resource.prlimit(made[0].pid, resource.RLIMIT_CPU)[0]
        assert limits["CPU"] + 4 <= later <= limits["CPU"] + 5
    assert made[0].returncode is not None


def test_opening_is_quick(path):
    """Well under a second of processor time, most of it the start of Python and h5py."""

    def spent():
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    before = spent()
    opening(path)
    assert spent() - before < 0.8


def test_the_process_imports_nothing_of_ours(path):
    code = "import sys, hdf5_child; print([m for m in sys.modules if m in ('caliper', 'torch')])"
    folder = hdf5.Path(hdf5.__file__).parent
    done = subprocess.run(
        [hdf5.sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
