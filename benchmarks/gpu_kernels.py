"""Compiles ahead every Warp kernel that the check of a GPU needs: of the tasks that it tests and measures.

Warp would compile them one by one, when each is first launched; here all cores do. Neither the number
of worlds nor the control frequency nor the pictures change what is compiled (`caliper.tools.precompile`).

    python benchmarks/gpu_kernels.py               # for the GPU that is here
    python benchmarks/gpu_kernels.py --arch 90     # for one that is not: for a cache to take there
    python benchmarks/gpu_kernels.py --device cpu  # only says how many there are
"""

import json
import os
import time

import torch
from _common import gpu_parser  # type: ignore[import-not-found]  # beside this script

from caliper.config.compose import compose
from caliper.tools.precompile import cache_folder, compile_all, record_run

TASKS = ("pick_place_can", "lift", "pick_place_tray")


def main():
    parser = gpu_parser(__doc__.splitlines()[0])
    parser.add_argument("--arch", type=int, help="compute capability, such as 90; that of the GPU here")
    args = parser.parse_args()
    arch = args.arch
    if arch is None and args.device != "cpu":
        arch = 10 * torch.cuda.get_device_capability()[0] + torch.cuda.get_device_capability()[1]
    start = time.perf_counter()
    variants = {v: None for task in TASKS for v in record_run(compose([f"task={task}"]))}
    noted = time.perf_counter()
    threads = len(os.sched_getaffinity(0))
    compiled = compile_all(variants, arch, threads) if arch else None
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
