"""Environment steps per second of `pick_place_can`, two 64x64 cameras: Warp's envs against the CPU engine.

OSC_POSE at 20 Hz, so 25 physics steps under fresh torques, outcome, masked reset and images for each step;
random actions; nothing waits for the device. The peer is the same environment on `mujoco.batch` with all the
machine's cores, by itself and with its tensors on the GPU, over the bridge. Where the time goes is measured
by doing each part alone, as often, on the same envs.
Without a GPU there are four envs on Warp's CPU device, and no result is written.

    python benchmarks/sim_gpu.py            # on a GPU: 256, 1024, 4096 envs; writes results/sim_gpu.json
    python benchmarks/sim_gpu.py --quick    # 256 envs, few steps, writes nothing
"""

import ctypes
import gc
import time
from functools import partial

import torch
import warp as wp
from _common import gpu_parser, on_every_core, report, synchronise  # type: ignore[import-not-found]  # beside this script

from caliper.envs.bridge import Bridge
from caliper.envs.graphs import WarpGraph
from caliper.envs.sim import SimEnv

TASK, CAMERAS, SIZE, HORIZON = "pick_place_can", ("agentview", "robot0_eye_in_hand"), 64, 200


def make(n, sim, device):
    return SimEnv(TASK, n, sim=sim, device=device, cameras=CAMERAS, size=SIZE, horizon=HORIZON)


def milliseconds(work, repeats, device):
    """Time of one call, from a device at rest to a device at rest."""
    for _ in range(2):  # the first loads the kernels, the second records them
        work()
    synchronise(device)
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    synchronise(device)
    return 1e3 * (time.perf_counter() - start) / repeats


def nodes(graph):
    """Nodes of a recorded CUDA graph, its loops counted as one each; None on a CPU."""
    if graph is None or not graph.device.is_cuda:
        return None
    count = ctypes.c_size_t()
    status = ctypes.CDLL("libcuda.so.1").cuGraphGetNodes(graph.graph, None, ctypes.byref(count))
    return count.value if status == 0 else None


def in_use(device):
    """Bytes of a GPU's memory that are taken, by torch and by Warp; 0 on a CPU."""
    if device == "cpu":
        return 0
    gc.collect()  # envs refer to themselves, and would still be there
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    return total - free


def measure(n, device, repeats):
    """Milliseconds of a whole control step of n envs and of its parts, and what it takes."""
    before = in_use(device)
    env = make(n, "warp", device)
    engine, substeps = env.engine, env._substeps
    action = 2 * torch.rand(64, n, env.action_dim, device=device) - 1
    turn = iter(range(1 << 30))

    def torques():
        engine.controller.set_goal()
        for _ in range(substeps):
            engine.controller.apply()

    parts = {
        "whole step": lambda: env.step(action[next(turn) % 64]),
        "physics and controller": lambda: engine.advance(substeps),
        "controller alone": partial(WarpGraph(engine.wp_device), torques),
        "images": lambda: env.observe(),
        "reset": lambda: (env._begin(env._begin_where_done), engine.refresh()),
    }
    row = {name: round(milliseconds(work, repeats, device), 3) for name, work in parts.items()}
    env.check()
    row["steps per second"] = round(1e3 * n / row["whole step"], 1)
    row["nodes of the physics graph"] = nodes(engine._advance[substeps]._graph)
    row["GiB"] = round((in_use(device) - before) / 2**30, 2) if device == "cuda" else None
    return row


def steps_per_second(env, repeats):
    action = 2 * torch.rand(env.num_envs, env.action_dim, device=env.device) - 1
    return round(1e3 * env.num_envs / milliseconds(lambda: env.step(action), repeats, env.device), 1)


def main():
    args = gpu_parser(__doc__.splitlines()[0]).parse_args()
    envs = [256] if args.quick else [256, 1024, 4096]
    if args.device == "cpu":
        envs = [4]
    rows, repeats = {}, 3 if args.quick else 20
    for n in envs:
        rows[n] = measure(n, args.device, repeats)
        print(f"{n} envs: {rows[n]}", flush=True)
        write(args, rows, None)  # what there is, should time run out
    peers = on_every_core(
        make, lambda env: [steps_per_second(seen, repeats) for seen in (env, Bridge(env, args.device))]
    )
    write(args, rows, *(peers or (None, None)))


def write(args, rows, peer, bridged=None):
    ours = max(row["steps per second"] for row in rows.values())
    device = torch.cuda.get_device_name() if args.device == "cuda" else "Warp's CPU device"
    report(
        "sim_gpu",
        ours=ours,
        peer=peer,
        ratio=round(ours / peer, 2) if peer else None,
        unit=f"environment steps per second of {TASK}, two {SIZE}x{SIZE} cameras",
        packages=("mujoco", "mujoco-warp", "warp-lang", "torch"),
        quick=args.quick or args.device == "cpu",
        device=device,
        warp_cuda=".".join(map(str, wp.get_cuda_toolkit_version() or ())) or None,
        envs=rows,
        peer_over_the_bridge=bridged,
    )


if __name__ == "__main__":
    main()
