"""Bytes per transition in the replay buffer, against the layout that stores both observations of each.

Two 64x64 cameras, episodes of 40 steps, the tray task's four actions. The naive layout is what most replay
buffers hold: observation, next observation, action, reward, end flag and, as here, the Monte-Carlo return.
Ours is what `ReplayBuffer` allocates when it is full of such episodes, the frame that ends each one
included.

    python benchmarks/memory.py            # writes benchmarks/results/memory.json
    python benchmarks/memory.py --quick    # the same, writes nothing
"""

import torch
from _common import arguments, report  # type: ignore[import-not-found]  # beside this script

from caliper.data.buffer import ReplayBuffer
from caliper.data.returns import RewardConfig
from caliper.types import Obs, ObsSpec

EPISODE, EPISODES, ACTIONS = 40, 50, 4
SPEC = ObsSpec(("agentview", "robot0_eye_in_hand"), 64, 11)


def main():
    args = arguments(__doc__.splitlines()[0])
    frames = EPISODE + 1
    obs = Obs(
        torch.randint(0, 256, (frames, 2, 3, SPEC.size, SPEC.size), dtype=torch.uint8),
        torch.zeros(frames, SPEC.proprio),
    )
    buffer = ReplayBuffer(EPISODES * frames, SPEC, ACTIONS, RewardConfig(gamma=0.99))
    for _ in range(EPISODES):
        buffer.add_episode(obs, torch.zeros(EPISODE, ACTIONS), torch.zeros(EPISODE), terminated=False)
    assert len(buffer) == EPISODES * EPISODE
    ours = buffer.nbytes / len(buffer)
    observation = (obs.pixels.nbytes + obs.proprio.nbytes) / frames
    scalars = torch.zeros(ACTIONS + 3)  # action, reward, terminal, return; float32
    naive = 2 * observation + scalars.nbytes
    report(
        "memory",
        ours=round(ours, 1),
        peer=round(naive, 1),
        ratio=round(ours / naive, 4),
        unit="bytes per transition (smaller is better)",
        packages=("torch",),
        quick=args.quick,
        cameras=len(SPEC.cameras),
        size=SPEC.size,
        episode=EPISODE,
    )


if __name__ == "__main__":
    main()
