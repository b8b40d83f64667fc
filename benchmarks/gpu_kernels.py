"""Compiles ahead every Warp kernel that the check of a GPU needs: of the tasks that it tests and measures.

Warp would compile them one by one, when each is first launched; here all cores do. Neither the number
of envs nor the control frequency nor the images change what is compiled (`caliper.tools.precompile`).

    python benchmarks/gpu_kernels.py               # for the GPU that is here
    python benchmarks/gpu_kernels.py --arch 90     # for one that is not: for a cache to take there
    python benchmarks/gpu_kernels.py --device cpu  # counts them, and compiles the CPU's by running them
"""

import json
import time

import torch
from _common import gpu_parser  # type: ignore[import-not-found]  # beside this script

from caliper.config.compose import compose
from caliper.envs.sim import SimEnv
from caliper.machine import cores
from caliper.tools.precompile import cache_folder, compile_all, record_run

TASKS = (
    "pick_place_can",
    "lift",
    "pick_place_tray",
    "stack",
    "door",
    "nut_assembly_square",
    "lift task.controller=joint_position",
    "lift task.controller=joint_velocity",
)


def compile_on_cpu():
    """Steps a few envs on Warp's CPU device, which compiles what it launches."""
    for task in TASKS[:2]:  # what the check of a CPU needs
        env = SimEnv(task, 2, sim="warp", size=16, threads=1)
        env.step(torch.zeros(2, env.action_dim))
        env.set_state(env.get_state())
        env.reset()


def main():
    parser = gpu_parser(__doc__.splitlines()[0])
    parser.add_argument("--arch", type=int, help="compute capability, such as 90; that of the GPU here")
    args = parser.parse_args()
    arch = args.arch
    if arch is None and args.device != "cpu":
        arch = 10 * torch.cuda.get_device_capability()[0] + torch.cuda.get_device_capability()[1]
    start = time.perf_counter()
    variants = {v: None for task in TASKS for v in record_run(compose(f"task={task}".split()))}
    noted = time.perf_counter()
    threads = cores()
    compiled = compile_all(variants, arch, threads) if arch else compile_on_cpu()
    result = {
        "name": "gpu_kernels",
        "tasks": TASKS,
        "modules": len(variants),
        "architecture": arch,
        "compiled now": compiled,
        "threads": threads,
        "seconds to note them": round(noted - start, 1),
        "seconds to compile them": round(time.perf_counter() - noted, 1),
        "cache": str(cache_folder()),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
