"""Which devices a run takes, with a GPU that is pretended, and what is kept of Warp's self-test."""

import json
import subprocess
from types import SimpleNamespace

import pytest
import torch

from caliper.config import devices as config_devices
from caliper.config.build import make_agent, make_envs, set_up_torch
from caliper.config.compose import compose
from caliper.config.validate import check
from caliper.errors import CaliperError
from caliper.training import devices as module
from caliper.training.devices import choose_devices, keep, record_path, remember, run_self_test, warp_works
from caliper.training.self_test import NO_MEMORY, PARTS, Finding

WELL = [Finding(name, "all is well") for name in PARTS]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def gpu(monkeypatch):
    """Two GPUs of one kind; their self-test finds what `gpu.findings` says, and is counted."""
    seen = SimpleNamespace(name="H200", findings=WELL, tried=[])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: seen.name)
    card = SimpleNamespace(total_memory=80 << 30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device=None: card)
    monkeypatch.setattr(module, "run_self_test", lambda device: seen.tried.append(device) or seen.findings)
    return seen


def chosen(*words):
    devices = choose_devices(compose(["task=lift", *words]))
    return devices.learner, devices.engine, devices.engine_device


def test_without_a_gpu_everything_is_on_the_cpu(no_gpu):
    for words in ([], ["sim=auto"], ["device=cpu", "sim=auto"]):
        assert chosen(*words) == ("cpu", "batch", "cpu")
        check(compose(["task=lift", *words]))
    assert chosen("sim=warp", "sim.device=cpu") == ("cpu", "warp", "cpu")
    told = str(choose_devices(compose(["sim=auto"])))
    assert told == (
        "learner on cpu (device=auto, and torch sees no GPU), "
        "sim=batch on cpu (sim=auto: the learner is on the CPU)"
    )


@pytest.mark.parametrize(("has", "precision"), [(True, "bfloat16"), (False, "float32")])
def test_bfloat16_is_taken_where_the_cpu_does_not_imitate_it(no_gpu, monkeypatch, has, precision):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": has}, raising=False)
    config = compose(["preset=pick_place_tray_demo"])
    told = choose_devices(config).learner_why
    assert told.endswith(
        f"in {precision}, agent.precision=auto: it has{'' if has else ' no'} instructions for bfloat16"
    )
    assert make_agent(config, "cpu").autocast._enabled is has
    named = compose(["preset=pick_place_tray_demo", "agent.precision=bfloat16"])
    assert make_agent(named, "cpu").autocast._enabled and "precision" not in choose_devices(named).learner_why


def test_with_a_gpu_the_learner_takes_it_whatever_the_physics(gpu):
    assert chosen() == ("cuda", "batch", "cpu")
    assert chosen("sim=warp") == ("cuda", "warp", "cuda")
    assert chosen("sim=warp", "device=cuda:1") == ("cuda:1", "warp", "cuda:1")
    assert chosen("sim=warp", "device=cpu") == ("cpu", "warp", "cuda")
    assert chosen("sim=warp", "sim.device=cpu") == ("cuda", "warp", "cpu")
    assert chosen("device=cpu", "sim=auto") == ("cpu", "batch", "cpu")
    assert gpu.tried == []  # nothing of that needs a self-test
    for words in (["learner=graph"], ["learner=graph", "sim=warp", "sim.device=cpu"], ["device=cuda:1"]):
        check(compose(["task=lift", *words]))


def test_warp_is_chosen_once_it_has_passed_and_tried_once(gpu, capsys):
    assert chosen("sim=auto") == ("cuda", "warp", "cuda")
    assert "trying MuJoCo Warp on this GPU, which is done once" in capsys.readouterr().out
    assert chosen("sim=auto") == ("cuda", "warp", "cuda")
    assert gpu.tried == ["cuda"] and capsys.readouterr().out == ""
    told = choose_devices(compose(["sim=auto"])).engine_why
    assert told == "sim=auto: Warp has passed its self-test on H200"
    gpu.name = "RTX 4090"  # of another GPU nothing is known
    assert warp_works("cuda")[0] and gpu.tried == ["cuda"] * 2


def test_another_package_or_driver_is_tried_anew(gpu, monkeypatch):
    warp_works("cuda")
    real = module.version
    monkeypatch.setattr(module, "version", lambda name: "99" if name == "mujoco-warp" else real(name))
    warp_works("cuda")
    monkeypatch.setattr(module.wp, "get_cuda_driver_version", lambda: (99, 0))
    warp_works("cuda")
    assert len(gpu.tried) == 3
    keys = list(json.loads(record_path().read_text()))
    assert "mujoco-warp 99" in keys[1] and "driver 99.0" in keys[2] and "H200" in keys[0]


@pytest.mark.parametrize("part", ["driver", "physics", "image"])
def test_where_warp_fails_the_cpu_simulates_and_the_learner_keeps_its_gpu(gpu, part):
    broken = Finding(part, "no conditional graphs", "update the NVIDIA driver")
    gpu.findings = [broken if finding.name == part else finding for finding in WELL]
    for _ in range(2):
        devices = choose_devices(compose(["sim=auto"]))
        assert (devices.learner, devices.engine, devices.engine_device) == ("cuda", "batch", "cpu")
        assert devices.engine_why == (
            f"sim=auto: Warp failed its self-test here, {part}: no conditional graphs -> update the NVIDIA "
            "driver"
        )
    assert gpu.tried == ["cuda"]  # a failure is remembered too, until caliper doctor finds otherwise
    remember(WELL)
    assert chosen("sim=auto") == ("cuda", "warp", "cuda")


def test_updates_that_cannot_be_recorded_do_not_keep_warp_away(gpu):
    gpu.findings = [*WELL[:3], Finding("update", "no capture", "set learner=eager")]
    assert chosen("sim=auto") == ("cuda", "warp", "cuda")


def test_a_full_gpu_is_not_remembered(gpu):
    gpu.findings = [WELL[0], Finding("physics", "CUDA out of memory", NO_MEMORY), *WELL[2:]]
    assert chosen("sim=auto")[1] == "batch"
    gpu.findings = WELL
    assert chosen("sim=auto")[1] == "warp"


def test_a_cache_that_is_damaged_or_not_writable_costs_another_try(gpu, monkeypatch):
    assert chosen("sim=auto")[1] == "warp"
    for damage in ("{", "[]", '{"H200": 3}', '{"H200": [{"name": 1}]}'):
        record_path().write_text(damage)
        assert chosen("sim=auto")[1] == "warp"
    assert len(gpu.tried) == 5
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert chosen("sim=auto")[1] == "warp" and len(gpu.tried) == 6


def test_gymnasiums_envs_ask_for_no_self_test(gpu, monkeypatch):
    config = compose(["task=adroit_pen", "sim=auto"])
    devices = choose_devices(config)
    assert (devices.learner, devices.engine, devices.engine_device) == ("cuda", "batch", "cpu")
    assert devices.engine_why.endswith("is stepped by Gymnasium") and gpu.tried == []


def finished(status, out="", err=""):
    return lambda *args, **keys: subprocess.CompletedProcess(args, status, out.encode(), err.encode())


def test_the_self_test_runs_in_a_process_of_its_own(monkeypatch):
    lines = "".join(json.dumps({"name": f.name, "said": f.said, "fix": None}) + "\n" for f in WELL)
    monkeypatch.setattr(subprocess, "run", finished(0, "Warp says hello\n" + lines))
    assert run_self_test("cuda") == WELL
    first = lines.splitlines()[0] + "\n"
    monkeypatch.setattr(subprocess, "run", finished(-11, first, "warning\nCUDA out of memory\n"))
    got = run_self_test("cuda")
    assert [f.name for f in got] == list(PARTS) and got[0].fix is None
    assert got[1] == Finding("physics", "its process ended with status -11: CUDA out of memory", NO_MEMORY)

    def late(*args, timeout, **keys):
        raise subprocess.TimeoutExpired(args, timeout, first.encode())

    monkeypatch.setattr(subprocess, "run", late)
    got = run_self_test("cuda")
    assert got[0].fix is None and got[1].said == "no end after 900 s" and "sim=batch" in got[1].fix


@pytest.mark.slow
def test_that_process_says_what_the_test_finds():
    assert [(f.name, f.fix) for f in run_self_test("cpu")] == [(name, None) for name in PARTS]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["device=cuda"], r"device=cuda, but torch sees no GPU; use device=auto"),
        (["device=cuda:0"], r"device=cuda:0, but torch sees no GPU"),
        (["sim=warp"], r"sim=warp, but torch sees no GPU; use sim=batch, or sim\.device=cpu"),
        (["learner=graph"], r"learner=graph needs a GPU for the learner, but device=auto, and torch sees no"),
        (["device=tpu"], r"device=tpu is unknown; choose auto, cpu, cuda, or a GPU as cuda:1"),
        (["device=cuda:x"], r"device=cuda:x is unknown"),
    ],
)
def test_what_is_refused_without_a_gpu(no_gpu, words, sentence):
    with pytest.raises(CaliperError, match=sentence):
        check(compose(["task=lift", *words]))


def test_what_is_refused_with_one(gpu):
    with pytest.raises(CaliperError, match="device=cuda:2, but torch sees 2 GPUs; they count from cuda:0"):
        check(compose(["task=lift", "device=cuda:2"]))
    with pytest.raises(CaliperError, match="learner=graph needs a GPU for the learner, but device=cpu; use"):
        check(compose(["task=lift", "device=cpu", "learner=graph", "sim=warp"]))


def test_torch_takes_the_chosen_gpu(gpu, monkeypatch):
    taken = []
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    set_up_torch(compose(["task=lift", "device=cuda:1"]))
    assert taken == [torch.device("cuda", 1)] and torch.backends.cudnn.benchmark is True
    set_up_torch(compose(["task=lift", "device=cpu"]))
    assert torch.backends.cudnn.benchmark is False and len(taken) == 1


def test_a_cpu_takes_tiny_numbers_for_zero():
    if not torch.set_flush_denormal(False):
        pytest.skip("this CPU has no such mode")
    tiny = torch.full((8,), 1e-30)
    assert (tiny * 1e-10 > 0).all()
    set_up_torch(compose(["task=lift", "device=cpu"]))
    assert (tiny * 1e-10 == 0).all()


def test_envs_come_to_the_learner(monkeypatch):
    monkeypatch.setattr(config_devices, "learner_device", lambda config: "meta")
    monkeypatch.setattr("caliper.config.build.learner_device", lambda config: "meta")
    env = make_envs(compose(["task=lift", "task.size=16"]), 1)
    assert env.device.type == "meta" and env.observe().pixels.device.type == "meta"


def test_a_run_keeps_what_it_took(gpu, no_gpu, tmp_path):
    first, second = choose_devices(compose([])), choose_devices(compose(["sim=warp", "sim.device=cpu"]))
    for devices in (first, first, second):
        keep(devices, tmp_path)
    starts = json.loads((tmp_path / "devices.json").read_text())["starts"]
    assert [start["engine"] for start in starts] == ["batch", "warp"]
    assert starts[0]["learner_why"] == "device=auto, and torch sees no GPU" and "at" in starts[0]
    (tmp_path / "devices.json").write_text("{")
    keep(first, tmp_path)
    assert len(json.loads((tmp_path / "devices.json").read_text())["starts"]) == 1
