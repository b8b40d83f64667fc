"""Kernels compiled for a GPU that is not here: the right ones, once, under the names that a run looks for."""

from types import SimpleNamespace

import pytest
import torch
import warp as wp
from warp._src import build, context

from caliper.cli import _dispatch, main
from caliper.config.compose import compose
from caliper.envs.sim import SimEnv, task_scene
from caliper.envs.tasks import TASKS
from caliper.errors import CaliperError
from caliper.tools import precompile as precompile_module
from caliper.tools.precompile import compile_all, precompile, record_run, recording

ARCH = 90


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty kernel cache."""
    kept, kept_root = wp.config.kernel_cache_dir, build._resolved_kernel_cache_dir
    build.init_kernel_cache(str(tmp_path))
    yield tmp_path / wp.config.version
    wp.config.kernel_cache_dir, build._resolved_kernel_cache_dir = kept, kept_root


def make_kernels():
    """A kernel of three operations and a tiled one, each a module of its own."""

    @wp.kernel(enable_backward=False, module="unique")
    def double(x: wp.array(dtype=float)):
        i = wp.tid()
        x[i] = 2.0 * x[i]

    @wp.kernel(enable_backward=False, module="unique")
    def fill(x: wp.array(dtype=float)):
        i, lane = wp.tid()  # type: ignore[misc]  # Warp's own language
        if lane == 0:
            x[i] = float(wp.block_dim())

    return double, fill


def gpu(driver=(13, 0)):
    """What Warp's lookup of a compiled module asks of a device."""
    device = object.__new__(context.Device)
    device.__dict__.update(
        runtime=SimpleNamespace(driver_version=driver, toolkit_version=(13, 4)),
        ordinal=0,
        alias="cuda:0",
        arch=ARCH,
        is_cubin_supported=True,
    )
    return device


def looked_up(module, block_dim, device):
    """Where a launch on the device would look for the compiled module, in the cache."""
    return f"{module.get_module_identifier(block_dim)}/" + module._get_compile_output_name(
        device, block_dim=block_dim
    )


def compiled(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*.cubin")}


def test_what_cuda_would_load_is_noted_with_its_block_size():
    double, fill = make_kernels()
    x = wp.zeros(4, dtype=float, device="cpu")
    with recording() as seen:
        wp.launch(double, dim=4, inputs=[x], device="cpu")
        wp.launch(double, dim=4, inputs=[x], device="cpu", block_dim=64)
        wp.launch_tiled(fill, dim=[4], inputs=[x], device="cpu", block_dim=32)
        wp.get_suggested_block_size(fill, "cpu")
    assert list(seen) == [
        (double.module, 256),
        (double.module, 64),
        (fill.module, 32),
        (fill.module, 256),  # to ask for its occupancy, CUDA loads the module as it is
    ]
    assert x.numpy().tolist() == [1.0] * 4  # the CPU ran them with its own block size
    wp.launch(fill, dim=(4, 1), inputs=[x], device="cpu", block_dim=128)
    assert len(seen) == 4  # nothing is noted afterwards


def test_nothing_need_be_compiled_to_be_noted(cache):
    double, fill = make_kernels()
    x = wp.ones(4, dtype=float, device="cpu")
    with recording(run=False) as seen:
        wp.launch(double, dim=4, inputs=[x], device="cpu", record_cmd=True).launch()
        wp.capture_while(
            x, lambda y: wp.launch_tiled(fill, dim=[4], inputs=[y], device="cpu", block_dim=32), y=x
        )
        wp.get_suggested_block_size(fill, "cpu")
    assert list(seen) == [(double.module, 256), (fill.module, 32), (fill.module, 256)]
    assert not list(cache.iterdir()) and x.numpy().tolist() == [1.0] * 4
    wp.launch(double, dim=4, inputs=[x], device="cpu")
    assert x.numpy().tolist() == [2.0] * 4  # afterwards all is as before


def test_compiled_once_and_found_by_warp(cache):
    double, fill = make_kernels()
    variants = [(double.module, 256), (double.module, 64), (fill.module, 32)]
    assert compile_all(variants, ARCH, 2) == 3
    names = {looked_up(module, block_dim, gpu()) for module, block_dim in variants}
    assert len(names) == 3 and compiled(cache) == names
    for name in names:
        assert (cache / name).read_bytes()[:4] == b"\x7fELF"
    assert compile_all(variants, ARCH, 2) == 0
    assert compile_all([*variants, (fill.module, 256)], ARCH, 1) == 1
    assert not list(cache.glob("*_p*_t*"))  # no build folder is left


@pytest.mark.parametrize("driver", [(13, 0), (14, 2)])
def test_machine_code_is_wanted_whatever_the_driver(driver):
    double, _ = make_kernels()
    assert looked_up(double.module, 256, gpu(driver)).endswith(f".sm{ARCH}.cubin")


@pytest.mark.slow
def test_scenes_are_dense():
    """A sparse model would take other block sizes on CUDA than the recording on the CPU notes."""
    for task in TASKS:
        assert task_scene(task).model.nv <= 32


def test_the_set_does_not_depend_on_envs_or_images(monkeypatch):
    words = ["task=lift", "threads=1", "task.size=16", "video.episodes=0"]
    few = set(record_run(compose(words)))
    monkeypatch.setattr(precompile_module, "NUM_ENVS", 5)
    many = set(record_run(compose([*words, "task.size=24", "task.cameras=[agentview]", "sim=warp"])))
    assert few == many and len(few) > 40
    monkeypatch.setattr(precompile_module, "recording", lambda run: recording())
    assert set(record_run(compose(words))) == few  # nor on whether anything is run
    assert {module.name.split(".")[-1] for module, _ in few} >= {"solver", "smooth", "bvh"}


def test_the_command(cache, capsys, monkeypatch):
    double, _ = make_kernels()
    asked = []

    def record(config):
        asked.append(config)
        return [(double.module, 256)]

    monkeypatch.setattr(precompile_module, "record_run", record)
    main(["doctor", "--precompile", "sm_90", "task=lift", "task.size=32", "threads=1"])
    said = capsys.readouterr().out
    assert said == (
        f"{cache} holds the 1 modules of kernels that lift needs on sm_90: 1 compiled now, 0 were there\n"
    )
    assert asked[0].task.name == "lift" and asked[0].task.size == 32
    main(["doctor", "task=lift", "--precompile", "sm_90"])
    assert "0 compiled now, 1 were there" in capsys.readouterr().out


def test_mistakes(cache):
    config = compose(["task=lift", "threads=1"])
    with pytest.raises(CaliperError, match=r"Warp cannot compile for 'sm_12'; choose one of: sm_75, .*sm_90"):
        precompile(config, "sm_12")
    with pytest.raises(CaliperError, match="for '90'; choose"):
        precompile(config, "90")
    with pytest.raises(CaliperError, match="no task"):
        _dispatch(["doctor", "--precompile", "sm_90", "task=foo"])
    with pytest.raises(CaliperError, match="name the GPU's architecture"):
        _dispatch(["doctor", "--precompile"])
    with pytest.raises(CaliperError, match=r"task\.size=0 makes no sense"):
        precompile(compose(["task=lift", "task.size=0"]), "sm_90")


def test_a_cache_that_cannot_be_written(cache):
    double, _ = make_kernels()
    (cache / "in_the_way").write_text("")
    wp.config.kernel_cache_dir = str(cache / "in_the_way")
    with pytest.raises(CaliperError, match=r"Cannot write .*in_the_way.*free some space or choose a folder"):
        compile_all([(double.module, 256)], ARCH, 1)


def test_a_kernel_that_does_not_compile(cache):
    @wp.func_native("this is no C++;")
    def broken(x: float): ...

    @wp.kernel(enable_backward=False, module="unique")
    def bad(x: wp.array(dtype=float)):
        broken(x[0])

    with pytest.raises(CaliperError, match=r"Warp cannot compile .* for sm_90 \(.*leave it to the first run"):
        compile_all([(bad.module, 256)], ARCH, 1)


@pytest.mark.slow
def test_every_kernel_of_a_run(cache):
    config = compose(["task=lift", "threads=2", "task.size=64"])
    said = precompile(config, "sm_90")
    assert "0 were there" in said
    variants = record_run(config)
    names = {looked_up(module, block_dim, gpu()) for module, block_dim in variants}
    assert compiled(cache) == names and len(names) == len(variants) >= 50
    assert ": 0 compiled now" in precompile(config, "sm_90")
    env = SimEnv("lift", 3, sim="warp", size=64, threads=1)
    with recording() as seen:
        env.step(torch.zeros(3, env.action_dim))
    assert set(seen) <= set(variants)
