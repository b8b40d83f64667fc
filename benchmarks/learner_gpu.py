"""Cal-QL updates per second on pixels on a GPU: each update one captured CUDA graph, against one by one.

Two 64x64 cameras, batch 256 (half of it online), 10 sampled actions, encoders `conv` and `impala`, float32
and bfloat16. Ours is learner=graph, the peer learner=eager: the same agent, draw of the batch included. They
take turns, round by round. Besides, what the fastest possible update would take: the larger of its
matrix operations at the card's peak and of the bytes that must move (weights, moments, images, and what the
backward pass keeps, each written and read once) at its bandwidth. The peaks are those of NVIDIA's data
sheets of the H100 (SXM) and H200, dense; another card's can be given.

Where JAX is installed, the same is measured on states against the official update written in JAX
(`_jax_update.py`), which is spared the draw of the batch.

Without a GPU the sizes are tiny, nothing is captured, and no result is written.

    python benchmarks/learner_gpu.py            # on a GPU, writes benchmarks/results/learner_gpu.json
    python benchmarks/learner_gpu.py --quick    # under 50 s, writes nothing
"""

import os
import statistics
import time
from functools import partial
from importlib.metadata import version

import torch
from _common import gpu_parser, report, synchronise  # type: ignore[import-not-found]  # beside this script
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from caliper.agents import build_agent
from caliper.data.buffer import ReplayBuffer
from caliper.data.mixing import MixedSampler
from caliper.data.returns import RewardConfig
from caliper.training.update import LEARNERS, WARM_UPS
from caliper.types import Obs, ObsSpec

EPISODE, EPISODES, ACTIONS, SAMPLES = 40, 50, 4, 10
STATE = 23  # entries of a state: the robot's 11 and an object's pose
SIZES = {True: (256, 64), False: (16, 32)}  # of a batch and of an image, on a GPU and without
BANDWIDTH = {"H100": 3.35, "H200": 4.8}  # TB/s
CASES = [(encoder, precision) for encoder in ("conv", "impala") for precision in ("float32", "bfloat16")]


def arguments():
    parser = gpu_parser(__doc__.splitlines()[0])
    parser.add_argument("--learners", nargs="+", default=["eager", "graph"], help="on a GPU")
    parser.add_argument("--peak-float32", type=float, default=67.0, help="TFLOP/s")
    parser.add_argument("--peak-tf32", type=float, default=495.0, help="TFLOP/s; of float32 convolutions")
    parser.add_argument("--peak-bfloat16", type=float, default=990.0, help="TFLOP/s")
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    bandwidth = next((speed for name, speed in BANDWIDTH.items() if name in card), BANDWIDTH["H200"])
    parser.add_argument("--peak-tbs", type=float, default=bandwidth, help="TB/s of the memory")
    return parser.parse_args()


def make_buffer(spec, device):
    """Episodes of noise: what is in the images costs nothing."""
    buffer = ReplayBuffer(EPISODES * (EPISODE + 1), spec, ACTIONS, RewardConfig(gamma=0.99), device)
    shape = (EPISODE + 1, len(spec.cameras), 3, spec.size, spec.size)
    for _ in range(EPISODES):
        pixels = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
        obs = Obs(pixels, torch.randn(EPISODE + 1, spec.proprio, device=device))
        actions = 2 * torch.rand(EPISODE, ACTIONS, device=device) - 1
        buffer.add_episode(obs, actions, torch.zeros(EPISODE, device=device), terminated=False)
    return buffer


def against_jax(args, batch, device):
    """Updates per second on states: ours and JAX's; None where there is no JAX."""
    spec = ObsSpec((), 1, STATE)
    sampler = MixedSampler(make_buffer(spec, device), make_buffer(spec, device), 0.5)
    # JAX would take three quarters of the GPU's memory at once.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    try:
        from _jax_update import OnStates  # type: ignore[import-not-found]  # beside this script
    except ImportError:
        return None
    learners = {"jax": OnStates(batch, STATE, ACTIONS)}
    for name in args.learners if device.type == "cuda" else ["eager"]:
        learners[name] = make_learner(name, "state", "float32", sampler, batch, spec, device)
    on = str(learners["jax"].device)
    rate = rates(learners, 5 if device.type == "cpu" else 100, 2 if args.quick else 5, device)
    return {
        "version of jax": version("jax"),
        "jax runs on": on,
        **{name: round(value, 1) for name, value in rate.items()},
    }


def make_learner(name, encoder, precision, sampler, batch, spec, device):
    cfg = {"name": "calql", "n_actions": SAMPLES, "n_target_actions": SAMPLES, "precision": precision}
    agent = build_agent(cfg, {"name": encoder}, spec, ACTIONS, device, 0)
    agent.go_online()
    return LEARNERS[name](agent, sampler, batch, torch.Generator(device).manual_seed(0))


def rates(learners, updates, rounds, device):
    """Updates per second of each learner once it is warm, by the median round."""
    for learner in learners.values():
        for _ in range(WARM_UPS + 1):
            learner.update()
    seconds = {name: [] for name in learners}
    for _ in range(rounds):
        for name, learner in learners.items():
            synchronise(device)
            start = time.perf_counter()
            for _ in range(updates):
                learner.update()
            getattr(learner, "wait", partial(synchronise, device))()
            seconds[name].append((time.perf_counter() - start) / updates)
    return {name: 1 / statistics.median(taken) for name, taken in seconds.items()}


def least_work(learner):
    """Operations of one update in convolutions and in other products, and bytes that it must move."""
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    batch = learner.sampler.sample(learner.batch_size, learner.generator)
    with FlopCounterMode(display=False) as counter, saved_tensors_hooks(keep, lambda tensor: tensor):
        learner.agent.update(batch)
    trained = sum(p.nbytes for p in learner.agent.parameters() if p.requires_grad)
    followed = sum(p.nbytes for p in learner.agent.target_critic.parameters())
    # Adam reads weights, gradients and two moments and writes all but the gradients; the backward pass wrote
    # these. The average reads both sides and writes one. Images are read from the buffer.
    moved = 8 * trained + 3 * followed + 2 * sum(kept.values())
    counts = counter.get_flop_counts()["Global"]
    convolutions = sum(count for op, count in counts.items() if "convolution" in str(op))
    moved += batch.obs.pixels.nbytes + batch.next_obs.pixels.nbytes
    return convolutions, sum(counts.values()) - convolutions, moved


def main():
    args = arguments()
    device = torch.device(args.device)
    gpu = device.type == "cuda"
    batch, size = SIZES[gpu]
    spec = ObsSpec(("agentview", "robot0_eye_in_hand"), size, 11)
    sampler = MixedSampler(make_buffer(spec, device), make_buffer(spec, device), 0.5)
    updates, rounds = (5, 2) if not gpu else (20, 5) if args.quick else (100, 5)
    cases = {}
    for encoder, precision in CASES:
        learners = {
            name: make_learner(name, encoder, precision, sampler, batch, spec, device)
            for name in (args.learners if gpu else ["eager"])
        }
        rate = rates(learners, updates, rounds, device)
        convolutions, products, moved = least_work(learners["eager"])
        # cuDNN takes float32 convolutions to the matrix units as TF32, which torch allows; not so products.
        peak = getattr(args, f"peak_{precision}")
        peak_convolutions = max(peak, args.peak_tf32) if torch.backends.cudnn.allow_tf32 else peak
        arithmetic = convolutions / peak_convolutions + products / peak
        floor = max(arithmetic, moved / args.peak_tbs) / 1e12  # seconds
        best = max(rate.values())
        cases[f"{encoder}_{precision}"] = {
            **{name: round(value, 1) for name, value in rate.items()},
            "gflop": round((convolutions + products) / 1e9, 2),
            "gflop_of_convolutions": round(convolutions / 1e9, 2),
            "megabytes": round(moved / 1e6, 1),
            "floor_ms": round(1e3 * floor, 4),
            "share_of_floor": round(floor * best, 4) if gpu else None,
        }
        print(f"{encoder} {precision}: {cases[f'{encoder}_{precision}']}", flush=True)
        write(args, cases, None)  # what there is, should time run out
    write(args, cases, against_jax(args, batch, device))


def write(args, cases, on_states):
    gpu = args.device.startswith("cuda")
    batch, size = SIZES[gpu]
    ours, peer = cases["conv_float32"].get("graph"), cases["conv_float32"]["eager"]
    report(
        "learner_gpu",
        ours=ours,
        peer=peer,
        ratio=round(ours / peer, 2) if ours else None,
        unit="Cal-QL updates per second (conv, float32; captured against one by one)",
        packages=("torch",),
        quick=args.quick or not gpu,
        device=torch.cuda.get_device_name(args.device) if gpu else "cpu",
        batch=batch,
        size=size,
        cases=cases,
        on_states=on_states,
        peaks={name: getattr(args, f"peak_{name}") for name in ("float32", "tf32", "bfloat16", "tbs")},
    )


if __name__ == "__main__":
    main()
