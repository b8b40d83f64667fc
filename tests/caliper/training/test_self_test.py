"""The GPU's self-test, on Warp's CPU device: it passes where all is well, and names the fix where not."""

import pytest
import torch

from caliper.envs.engines.warp import WarpEngine
from caliper.envs.render.raster import Rasteriser
from caliper.training import self_test as module
from caliper.training.self_test import PARTS, fix, self_test


def test_all_is_well_on_the_cpu():
    findings = list(self_test("cpu"))
    assert [f.name for f in findings] == list(PARTS)
    assert all(f.fix is None for f in findings), findings
    assert "rad of the CPU's" in findings[1].said and "critic/loss" in findings[3].said


def test_a_device_that_computes_something_else_is_found_out(monkeypatch):
    advance, render = WarpEngine.advance, Rasteriser.render

    def drift(engine, substeps):
        advance(engine, substeps)
        engine.qpos[:, 0] += 1e-3

    monkeypatch.setattr(WarpEngine, "advance", drift)
    monkeypatch.setattr(Rasteriser, "render", lambda self, changed=None: render(self, changed) // 2)
    losses = iter((1.0, 1.1))
    monkeypatch.setattr(module, "_last_report", lambda kind, device: {"critic/loss": next(losses)})
    findings = {f.name: f for f in self_test("cpu")}
    assert findings["physics"].said.startswith("after 6 steps the joints are ")
    assert findings["physics"].fix == "set sim=batch, which needs no Warp on the GPU, and report this line"
    assert findings["update"].said == "critic/loss of an update is 1, and 1.1 without a graph"
    assert findings["image"].fix is None  # the CPU's engine is drawn by the same


def test_one_failure_does_not_hide_the_next(monkeypatch):
    def broken(*_):
        raise RuntimeError("Failed to allocate 8 bytes on device 'cuda:0'\nsecond line")

    monkeypatch.setattr(module._Envs, "make", broken)
    findings = list(self_test("cpu"))
    assert [f.fix is None for f in findings] == [True, False, False, True]
    assert findings[1].said == "Failed to allocate 8 bytes on device 'cuda:0'"
    assert findings[1].fix == "end other programs on the GPU, or take fewer envs"


@pytest.mark.parametrize(
    ("reason", "says"),
    [
        ("CUDA out of memory. Tried to allocate 2.00 GiB", "fewer envs"),
        ("256 envs need 9.1 GiB on cuda, where 0.2 are free", "fewer envs"),
        ("Warp has no memory pool on H200", "no memory pools"),
        ("Conditional graph nodes require CUDA driver 12.4+", "CUDA 12.4"),
        ("CUDA driver version is insufficient for CUDA runtime version", "CUDA 12.4"),
        ("Found no NVIDIA driver on your system", "CUDA 12.4"),
        ("no kernel image is available for execution on the device", "a torch built for this GPU"),
        ("operation not permitted when stream is capturing", "learner=eager"),
        ("something nobody has seen", "report this line"),
    ],
)
def test_every_known_failure_has_its_fix(reason, says):
    assert says in fix(reason)


def test_a_gpu_without_a_driver(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(module._Envs, "make", lambda *_: (_ for _ in ()).throw(RuntimeError("no driver")))
    monkeypatch.setattr(module, "_last_report", lambda *_: {})
    first = next(self_test("cuda"))
    assert first.said == "torch finds no CUDA driver" and "update the NVIDIA driver" in first.fix
