"""Cal-QL updates per CPU second on pixels: Caliper against d3rlpy 2.8.1, same networks, same machine.

64x64x3 images, batch 256, 8 actions, 10 sampled actions, maximum backup, Lagrange form (d3rlpy's
default), one thread. Both have d3rlpy's networks, 1,819,634 weights: Nature convolutions, 512 units with
the action joined before them, one encoder for the policy and one for each of two Q functions. Caliper's
agent is the one that trains, made by `build_agent` from a config; its policy has two scalars more (scale
and offset of log std, as in the official code).

The peer runs in a virtual environment of its own, `.venv-peers/d3rlpy`, which a full run makes.

    python benchmarks/learner_cpu.py            # full, writes benchmarks/results/learner_cpu.json
    python benchmarks/learner_cpu.py --quick    # under 50 s, writes nothing
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import venv
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

ROOT = Path(__file__).resolve().parents[1]
PEER = ROOT / ".venv-peers" / "d3rlpy"
RESULT = ROOT / "benchmarks" / "results" / "learner_cpu.json"
BATCH, SIZE, ACTIONS, SAMPLES, WEIGHTS = 256, 64, 8, 10, 1_819_634
D3RLPY = "2.8.1"


def rate(step, n, weights):
    """Steps per second of CPU time, by the median step: other load on the machine slows single ones.

    Every one of the weights must be a number and must have moved by then, or less is done than is claimed.
    """
    before, seconds = [w.detach().clone() for w in weights], []
    for _ in range(n):
        start = time.process_time()
        step()
        seconds.append(time.process_time() - start)
    for old, new in zip(before, weights, strict=True):
        assert new.isfinite().all() and not (old == new).all(), "an update left weights as they were"
    return 1 / statistics.median(seconds)


def ours(n):
    """Caliper's own update, through the config alone."""
    import torch

    from caliper.agents import build_agent
    from caliper.types import Batch, Obs, ObsSpec

    torch.set_num_threads(1)
    agent_cfg = {
        "name": "calql",
        "actor_hidden": [512],
        "critic_hidden": [512],
        "encoder_per_critic": True,
        "n_actions": SAMPLES,
        "n_target_actions": SAMPLES,
        "lagrange": True,
        "gap": 10.0,
        "shift_pad": 0,
    }
    encoder_cfg = {"name": "nature", "latent": None, "proprio": None}
    agent = build_agent(agent_cfg, encoder_cfg, ObsSpec(("front",), SIZE, 0), ACTIONS, "cpu", 0)
    weights = [p for net in (agent.actor, agent.critic) for p in net.parameters()]
    assert sum(p.numel() for p in weights) - 2 == WEIGHTS

    def obs():
        pixels = torch.randint(0, 256, (BATCH, 1, 3, SIZE, SIZE), dtype=torch.uint8)
        return Obs(pixels, torch.zeros(BATCH, 0))

    action = 2 * torch.rand(BATCH, ACTIONS) - 1
    batch = Batch(obs(), action, torch.randn(BATCH), obs(), torch.zeros(BATCH), torch.randn(BATCH))
    for _ in range(2):
        agent.update(batch)
    trained = [*weights, agent.log_alpha, agent.log_lagrange, *agent.target_critic.parameters()]
    return rate(lambda: agent.update(batch), n, trained), torch.__version__


def peer(n):
    """d3rlpy's update on one fixed batch; runs inside its own environment."""
    import d3rlpy  # type: ignore[import-not-found]  # only in the peer's environment
    import torch
    from d3rlpy.torch_utility import TorchMiniBatch  # type: ignore[import-not-found]  # the same

    torch.set_num_threads(1)
    algo = d3rlpy.algos.CalQLConfig(batch_size=BATCH, n_action_samples=SAMPLES, max_q_backup=True)
    algo = algo.create(device="cpu:0")
    algo.create_impl((3, SIZE, SIZE), ACTIONS)
    modules = algo.impl._modules
    weights = [p for net in (modules.policy, modules.q_funcs) for p in net.parameters()]
    assert sum(p.numel() for p in weights) == WEIGHTS

    def batch(b):
        def obs():
            return torch.randint(0, 256, (b, 3, SIZE, SIZE), dtype=torch.uint8).float()

        return TorchMiniBatch(
            observations=obs(),
            actions=2 * torch.rand(b, ACTIONS) - 1,
            rewards=torch.randn(b, 1),
            next_observations=obs(),
            next_actions=2 * torch.rand(b, ACTIONS) - 1,
            returns_to_go=torch.randn(b, 1),
            terminals=torch.zeros(b, 1),
            intervals=torch.ones(b, 1),
            device="cpu:0",
        )

    algo.impl.update(
        batch(16), 0
    )  # warm: makes the optimisers' state; a step on the whole batch takes seconds
    whole = batch(BATCH)
    others = (modules.log_temp, modules.log_alpha, modules.targ_q_funcs)
    trained = [*weights, *(p for module in others for p in module.parameters())]
    return rate(lambda: algo.impl.update(whole, 0), n, trained), torch.__version__


def make_peer(torch_version):
    """Makes the peer's environment: a folder that git ignores by its own .gitignore."""
    print(f"making {PEER.relative_to(ROOT)} (downloads torch once more; minutes)", file=sys.stderr)
    venv.create(PEER, with_pip=True, clear=True)
    (PEER.parent / ".gitignore").write_text("*\n")
    requirements = [f"d3rlpy=={D3RLPY}", f"torch=={torch_version}"]
    subprocess.run([PEER / "bin" / "python", "-m", "pip", "install", "-q", *requirements], check=True)


def hardware():
    """The processor's name and how many there are."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if "model name" in line] if info.exists() else []
    return (
        f"{names[0].split(':')[1].strip() if names else platform.machine()}, {os.cpu_count()} cores, 1 used"
    )


def main():
    """Measures both and prints one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer updates; needs the peer's environment")
    parser.add_argument("--peer-torch", help="torch version for the peer's environment (default: ours)")
    parser.add_argument("--as-peer", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.as_peer:
        print(json.dumps(peer(args.as_peer)))
        return
    if not (PEER / "bin" / "python").exists():
        if args.quick:
            sys.exit(
                "The peer's .venv-peers/d3rlpy is missing; make it with: python benchmarks/learner_cpu.py"
            )
        import torch

        make_peer(args.peer_torch or torch.__version__.split("+")[0])
    our_rate, our_torch = ours(10 if args.quick else 40)
    command = [PEER / "bin" / "python", __file__, "--as-peer", "1" if args.quick else "8"]
    out = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ).stdout
    peer_rate, peer_torch = json.loads(out.splitlines()[-1])
    result = {
        "name": "learner_cpu",
        "ours": round(our_rate, 3),
        "peer": round(peer_rate, 4),
        "ratio": round(our_rate / peer_rate, 2),
        "unit": "Cal-QL updates per CPU second",
        "hardware": hardware(),
        "versions": {
            "python": platform.python_version(),
            "torch": our_torch,
            "d3rlpy": D3RLPY,
            "peer_torch": peer_torch,
        },
        "date": datetime.date.today().isoformat(),
    }
    if not args.quick:
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
