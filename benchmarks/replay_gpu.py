"""Images per second of recorded states rendered again, 64x64 pixels: Warp's envs against the CPU engine.

Episodes of `pick_place_can` from random actions are recorded; their states, two cameras each, become
images without physics (`caliper.rollout.replay.rendered`), which stay on the device. The same under looks of
their own is measured beside it. The peer is the CPU engine on the same machine with all its cores. Without a
GPU there are two envs on Warp's CPU device, and no result is written.

    python benchmarks/replay_gpu.py            # on a GPU: 1024 envs; writes results/replay_gpu.json
    python benchmarks/replay_gpu.py --quick    # 256 envs, few states, writes nothing
"""

import time
from importlib.metadata import version

import torch
from _common import gpu_parser, on_every_core, report, synchronise  # type: ignore[import-not-found]  # beside this script

from caliper.data.dataset import Dataset, DatasetMeta, Episode
from caliper.envs.scene.appearance import AppearanceRanges, VisualAugmentation
from caliper.envs.sim import SimEnv
from caliper.rollout.replay import rendered

TASK, CAMERAS, SIZE, EPISODE = "pick_place_can", ("agentview", "robot0_eye_in_hand"), 64, 32
APPEARANCES = VisualAugmentation(
    copies=2, ranges=AppearanceRanges(shift=0.01, turn=0.02, light=0.2, colour=0.2)
)


def make(n, sim, device):
    return SimEnv(TASK, n, sim=sim, device=device, cameras=CAMERAS, size=SIZE)


def record(frames, sim, device):
    """A dataset of at least so many frames; few episodes are simulated, and repeated."""
    env = SimEnv(TASK, 8, sim=sim, device=device, cameras=())
    generator = torch.Generator().manual_seed(0)
    states = [env.get_state()]
    for _ in range(EPISODE - 1):
        env.step((2 * torch.rand(8, env.action_dim, generator=generator) - 1).to(env.device))
        states.append(env.final_state)
    whole = torch.stack(states, dim=1).cpu().numpy()  # (n, t + 1, s)
    actions = torch.zeros(EPISODE - 1, env.action_dim).numpy()
    rewards = torch.zeros(EPISODE - 1).numpy()
    count = -(-frames // EPISODE)
    episodes = [
        Episode(whole[i % 8, :-1], whole[i % 8, -1], actions, rewards, False, False, i, 0.0)
        for i in range(count)
    ]
    meta = DatasetMeta(
        task=TASK,
        scene_hash=env.scene_hash,
        mujoco_version=version("mujoco"),
        controller=env.controller,
        control_freq=env.control_freq,
        action_dim=env.action_dim,
        state_dim=env.state_dim,
        horizon=EPISODE - 1,
        collector="random actions",
        seed=0,
    )
    return Dataset(meta, episodes)


def images_per_second(env, dataset, copy):
    """Rate over a whole dataset, from a device at rest to a device at rest."""
    for _ in range(2):  # the first loads the kernels, the second records them
        for _ in rendered(env, Dataset(dataset.meta, dataset.episodes[:1]), APPEARANCES, copy):
            pass
    synchronise(env.device)
    start = time.perf_counter()
    for _ in rendered(env, dataset, APPEARANCES, copy):
        pass
    synchronise(env.device)
    return round(dataset.num_frames * len(CAMERAS) / (time.perf_counter() - start), 1)


def main():
    parser = gpu_parser(__doc__.splitlines()[0])
    parser.add_argument("--envs", type=int, help="of the Warp engine; the CPU engine has four per core")
    args = parser.parse_args()
    on_gpu = args.device.startswith("cuda")
    envs = args.envs or ((256 if args.quick else 1024) if on_gpu else 2)
    frames = envs * (8 if args.quick else 64)
    dataset = record(frames, "warp" if on_gpu else "batch", args.device)
    some = Dataset(dataset.meta, dataset.episodes[: 8 if args.quick else 64])
    peer = on_every_core(make, lambda env: images_per_second(env, some, 0))
    env = make(envs, "warp", args.device)
    ours, dressed = (images_per_second(env, dataset, copy) for copy in (0, 1))
    report(
        "replay_gpu",
        ours=ours,
        peer=peer,
        ratio=round(ours / peer, 2) if peer else None,
        unit=f"images per second of {SIZE}x{SIZE} pixels, {TASK}",
        packages=("mujoco", "mujoco-warp", "warp-lang", "torch"),
        quick=args.quick or not on_gpu,
        device=torch.cuda.get_device_name() if on_gpu else "Warp's CPU device",
        envs=envs,
        frames=dataset.num_frames,
        under_appearances_of_their_own=dressed,
    )


if __name__ == "__main__":
    main()
