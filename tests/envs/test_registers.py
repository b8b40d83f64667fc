"""What compiled kernels take of a GPU's multiprocessor; a block that does not fit cannot be launched."""

import re
import subprocess
from pathlib import Path

import pytest
import warp as wp

from caliper.config.compose import compose
from caliper.envs.robot.controller import BLOCK
from caliper.envs.robot.kernels import kernels
from caliper.tools.precompile import cache_folder, compile_all, record_run
from tests.caliper.tools.test_precompile import cache, gpu, looked_up  # noqa: F401  # a fixture

triton = pytest.importorskip("triton", reason="the reader of compiled kernels comes with it")
READER = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
REGISTERS = 65536  # of a multiprocessor of compute capability 9.0, and of a block
ARCH = 90


def resources(variant):
    """Registers of a thread, and bytes of its stack, of each kernel in a compiled module."""
    path = cache_folder() / looked_up(*variant, gpu())
    said = subprocess.run([READER, "--dump-resource-usage", path], capture_output=True, text=True, check=True)
    found = re.findall(r"Function (\S+):\s+REG:(\d+) STACK:(\d+)", said.stdout)
    return {name: (int(registers), int(stack)) for name, registers, stack in found}


def test_the_controllers_kernels_fit_and_spread(cache):  # noqa: F811
    variants = [(kernel.module, BLOCK) for kernel in kernels(wp.float32, 7, 0)]
    compile_all(variants, ARCH, 1)
    (goal, torque) = (next(iter(resources(variant).values())) for variant in variants)
    assert goal[0] <= 64 and torque[0] * BLOCK <= REGISTERS // 4
    assert torque[1] <= 280  # bytes of the stack, where what finds no register goes
    assert 1024 // BLOCK >= 32  # multiprocessors that a thousand envs keep busy


@pytest.mark.slow
def test_every_kernel_of_a_run_fits(cache):  # noqa: F811
    variants = record_run(compose(["task=pick_place_can"]))
    compile_all(variants, ARCH, 2)
    for variant in variants:
        for name, (registers, _) in resources(variant).items():
            assert registers * variant[1] <= REGISTERS, f"{name}: {registers} registers, {variant[1]} threads"
