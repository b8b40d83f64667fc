"""The doctor tells what is here and what is missing, with the fix, and never falls over what is missing."""

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import warp as wp

from caliper.cli import main
from caliper.tools import doctor as doctor_module
from caliper.training import devices
from caliper.training.self_test import Finding

ROOT = Path(__file__).resolve().parents[3]


def table(capsys):
    """The printed lines by their names."""
    lines = capsys.readouterr().out.split("\n\n")[0].splitlines()
    return {line[:24].strip(): line[24:] for line in lines}


@pytest.fixture
def no_image(monkeypatch):
    monkeypatch.setattr(doctor_module, "_image", lambda sim, device: "drawn")


def installed(monkeypatch, **versions):
    """Pretends that packages have another version, or None for none."""
    real = importlib.metadata.version

    def version(name):
        if name in versions and versions[name] is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions.get(name) or real(name)

    monkeypatch.setattr(doctor_module, "version", version)


def test_everything_is_here(capsys):
    main(["doctor"])  # no exit: status 0
    out = capsys.readouterr().out
    assert out.endswith("\n\nEverything needed is there.\n")
    lines = out.split("\n\n")[0].splitlines()
    assert all(re.match(r"\S.{23}(?<= )\S", line) for line in lines)  # two columns, aligned
    rows = {line[:24].strip(): line[24:] for line in lines}
    assert rows["torch"] == importlib.metadata.version("torch")
    assert rows["robosuite"] == "1.5.2"
    assert {"warp-lang", "mujoco-warp", "hydra-core", "h5py", "CPU cores"} <= rows.keys()
    assert re.fullmatch(r"lift at 64x64 in [\d.]+ ms, after [\d.]+ s to get ready", rows["image on cpu"])
    folder = re.fullmatch(r"(?:read from|compiled now, kept in) (/.+)", rows["rasteriser"])[1]
    assert list(Path(folder).glob("compiled.*draw*.nbi"))
    assert rows["kernel cache"].startswith(f"{wp.config.kernel_cache_dir}: ")
    assert rows["wandb mode"].startswith("offline")
    assert "ffmpeg" in rows["video encoder"]


def test_a_machine_without_a_gpu(capsys, monkeypatch, no_image):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(wp, "is_cuda_available", lambda: False)
    monkeypatch.setattr(wp, "get_cuda_devices", lambda: [])
    main(["doctor"])
    rows = table(capsys)
    assert rows["CUDA for torch"].startswith("none (torch is built ")
    assert rows["CUDA for Warp"].startswith("none (CUDA 1")
    assert rows["engine batch"] == "on cpu"
    assert rows["engine warp"] == "on cpu, for tests; no GPU"
    assert not any(name.startswith("GPU ") for name in rows)
    assert rows["device=auto"] == "cpu (device=auto, and torch sees no GPU)"
    assert rows["sim=auto"] == "batch on cpu (sim=auto: the learner is on the CPU)"


def test_a_machine_with_a_gpu(capsys, monkeypatch, no_image, tmp_path):
    card = SimpleNamespace(name="H200", total_memory=139 * 2**30, major=9, minor=0, arch=90)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    monkeypatch.setattr(wp, "is_cuda_available", lambda: True)
    monkeypatch.setattr(wp, "get_cuda_devices", lambda: [card])
    monkeypatch.setattr(wp, "get_cuda_driver_version", lambda: (13, 0))
    found = [("driver", "530", None), ("physics", "6 control steps, joints within 1e-6 rad", None)]
    found += [("image", "2.0 of 255 off", "set sim=batch"), ("update", "captured", None)]
    findings = [Finding(*entry) for entry in found]
    monkeypatch.setattr(devices, "run_self_test", lambda device: findings)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "H200")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(SystemExit):
        main(["doctor"])
    rows = table(capsys)
    assert rows["CUDA for torch"].startswith("H200, 139 GiB, sm_90 (CUDA ")
    assert re.fullmatch(r"H200, 139 GiB, sm_90 \(CUDA \d+\.\d+, driver's: 13\.0\)", rows["CUDA for Warp"])
    assert rows["engine warp"] == "on cuda, and on cpu for tests"
    assert rows["GPU physics"] == "6 control steps, joints within 1e-6 rad"
    assert rows["GPU image"] == "2.0 of 255 off -> set sim=batch"
    assert rows["device=auto"] == "cuda (device=auto, and torch sees H200)"
    failed = "Warp failed its self-test here, image: 2.0 of 255 off -> set sim=batch"
    assert rows["sim=auto"] == f"batch on cpu (sim=auto: {failed})"
    findings[2] = Finding("image", "0.1 of 255 off")
    main(["doctor"])  # tries again, and keeps what it finds
    assert table(capsys)["sim=auto"].startswith("warp on cuda (sim=auto: Warp has passed its self-test")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    main(["doctor"])
    assert "torch does not see Warp's GPU -> install a torch built for CUDA" in table(capsys)["engine warp"]


def test_what_is_missing_comes_with_its_fix(capsys, monkeypatch, no_image):
    installed(monkeypatch, robosuite=None, h5py="3.1.0", einops=None)
    with pytest.raises(SystemExit) as stop:
        main(["doctor"])
    assert stop.value.code == 1
    out = capsys.readouterr().out
    assert f"{'robosuite':24}missing -> pip install --no-deps robosuite==1.5.2\n" in out
    assert f"{'h5py':24}3.1.0, >=3.11 is needed -> pip install 'h5py>=3.11'\n" in out
    assert f"{'einops':24}missing -> pip install 'einops>=0.8'\n" in out
    assert out.endswith("\n\n3 missing\n")


def test_no_encoder(capsys, monkeypatch, no_image):
    def missing():
        raise RuntimeError("no ffmpeg exe could be found")

    monkeypatch.setattr("imageio_ffmpeg.get_ffmpeg_exe", missing)
    with pytest.raises(SystemExit):
        main(["doctor"])
    assert table(capsys)["video encoder"].endswith("pip install --force-reinstall imageio-ffmpeg")


def test_without_robosuite_nothing_falls_over():
    """In a process of its own, where robosuite cannot be imported at all."""
    program = (
        "import sys, importlib.metadata as metadata\n"
        "sys.modules['robosuite'] = None\n"
        "real = metadata.version\n"
        "def version(name):\n"
        "    if name == 'robosuite': raise metadata.PackageNotFoundError(name)\n"
        "    return real(name)\n"
        "metadata.version = version\n"
        "from caliper.cli import main\n"
        "main(['doctor'])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr == ""
    assert "missing -> pip install --no-deps robosuite==1.5.2" in done.stdout
    assert re.search(r"image on cpu +does not work: robosuite cannot be imported", done.stdout)
    assert "wandb mode" in done.stdout and done.stdout.endswith("\n\n2 missing\n")


def test_the_pin_of_robosuite_is_the_projects():
    assert doctor_module.ROBOSUITE in (ROOT / "constraints.txt").read_text().splitlines()
    scenes = (ROOT / "envs" / "scene" / "scenes.py").read_text()
    assert f"pip install --no-deps {doctor_module.ROBOSUITE}" in scenes


def test_the_kernel_cache_is_counted_by_architecture(tmp_path, capsys, monkeypatch, no_image):
    for name in ("wp_a_1/wp_a_1.sm90.cubin", "wp_b_1/wp_b_1.sm90.cubin", "wp_b_1/wp_b_1.sm75.ptx"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(bytes(2**20))
    (tmp_path / "wp_c_1").mkdir()
    (tmp_path / "wp_c_1" / "wp_c_1.cpu1a2b3c.o").write_bytes(b"")
    (tmp_path / "wp_c_1" / "wp_c_1.meta").write_bytes(b"")
    monkeypatch.setattr(wp.config, "kernel_cache_dir", str(tmp_path))
    main(["doctor"])
    counted = "3 MiB, compiled modules: 1 for cpu, 1 for sm_75, 2 for sm_90"
    assert table(capsys)["kernel cache"] == f"{tmp_path}: {counted}"


def test_a_word_too_many(capsys):
    with pytest.raises(SystemExit):
        main(["doctor", "task=lift"])
    assert "caliper doctor takes no 'task=lift' without --precompile" in capsys.readouterr().err
