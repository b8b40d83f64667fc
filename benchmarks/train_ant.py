"""Trains the ant of AntMaze to walk to any near goal, from nothing, with Caliper's own SAC.

    python benchmarks/train_ant.py OUT --updates 600000

OUT holds a checkpoint, from which the same command goes on, log.csv, and walker.npz, the greedy policy's
weights. After 107,000 updates they are `ant_teacher.npz`, beside this script, from which `distil_ant.py`
makes the walker of `caliper collect task=antmaze`. The world is Gymnasium's ant on its floor; it is rewarded
with its speed towards the goal in m/s, up to 1.5, and with how upright it is. A reached goal gives way to
another. Half of the ants have noise on their motors, as the walks that are recorded.

The ant looks the same after each quarter turn. So the walker is asked only for goals ahead, within 45
degrees: `Quarter` turns the ant's numbers by quarters until the goal lies there, and its actions back.
"""

import argparse
import csv
import math
import time
from dataclasses import dataclass
from pathlib import Path

import gymnasium
import mujoco
import numpy as np
import torch
from mujoco.batch import Batch as Worlds

from caliper.agents import build_agent
from caliper.envs.scripts.ant import REACH
from caliper.types import Batch, Obs, ObsSpec
from caliper.utils.files import replacing

ENVS, LIMIT, NEAR, SUBSTEPS = 16, 300, 0.5, 5
FASTEST, PER_STEP = 1.5, 2  # m/s that still count; updates for each step of all envs
NOISE = 0.2  # standard deviation, on half of the ants' motors
KEEP = 600_000  # transitions
SEEN = 28  # numbers that the walker sees
AGENT = {
    "name": "sac",
    "actor_hidden": [128, 128],
    "critic_hidden": [128, 128],
    "layer_norm": True,
    "discount": 0.98,
    "actor_lr": 5e-4,
    "critic_lr": 5e-4,
    "temperature_lr": 3e-4,
    "init_temperature": 0.1,
    "target_entropy": -4.0,
}
# An ankle's axis points the other way on the second and third leg.
ANKLE_SIGN = np.array([1.0, -1.0, -1.0, 1.0])
MOTORS = np.array([6, 7, 0, 1, 2, 3, 4, 5])  # Gymnasium's motors begin with the fourth leg


def turned(vectors: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Vectors (n, 2) in a frame that is turned by `angle` (n,)."""
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([c * vectors[:, 0] + s * vectors[:, 1], c * vectors[:, 1] - s * vectors[:, 0]], 1)


@dataclass(frozen=True, slots=True)
class Quarter:
    """n ants as seen by the walker.

    Attributes:
        seen: (n, 28): height, which way is up, velocity, spin, hips and ankles, their speeds, the goal.
        turns: quarter turns of each ant, (n,).
    """

    seen: np.ndarray
    turns: np.ndarray

    @staticmethod
    def of(qpos: np.ndarray, qvel: np.ndarray, goal: np.ndarray) -> "Quarter":
        """Ants at `qpos` (n, 15) with `qvel` (n, 14), to go to `goal` (n, 2), metres."""
        w, x, y, z = qpos[:, 3:7].T
        yaw = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
        up = np.stack(
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], 1
        )  # in the ant's frame
        offset = goal - qpos[:, :2]
        angle = np.arctan2(offset[:, 1], offset[:, 0]) - yaw
        turns = np.round(angle / (math.pi / 2)).astype(np.int64)
        quarter = turns * (math.pi / 2)
        distance = np.linalg.norm(offset, axis=1, keepdims=True)
        ahead = turned(offset, yaw + quarter) / np.maximum(distance, 1e-6) * np.minimum(distance, REACH)
        flat = np.concatenate([up[:, 2:], qvel[:, 2:3]], 1)
        legs = (np.arange(4) + turns[:, None]) % 4  # (n, 4), the ant's own number of each leg
        hips = [np.take_along_axis(v.reshape(-1, 4, 2)[..., 0], legs, 1) for v in (qpos[:, 7:], qvel[:, 6:])]
        ankles = [
            np.take_along_axis(v.reshape(-1, 4, 2)[..., 1] * ANKLE_SIGN, legs, 1)
            for v in (qpos[:, 7:], qvel[:, 6:])
        ]
        seen = [
            qpos[:, 2:3],
            turned(up[:, :2], quarter),
            flat,
            turned(qvel[:, :2], yaw + quarter),
            turned(qvel[:, 3:5], quarter),
            qvel[:, 5:6],
            hips[0],
            ankles[0],
            0.1 * hips[1],
            0.1 * ankles[1],
            ahead,
        ]
        return Quarter(np.concatenate(seen, 1), turns)

    def motors(self, action: np.ndarray) -> np.ndarray:
        """Controls (n, 8) in Gymnasium's order, of the walker's action (n, 8): hips, then ankles."""
        legs = (np.arange(4) - self.turns[:, None]) % 4
        hips = np.take_along_axis(action[:, :4], legs, 1)
        ankles = np.take_along_axis(action[:, 4:], legs, 1) * ANKLE_SIGN
        return np.stack([hips, ankles], -1).reshape(-1, 8)[:, MOTORS]


class Field:
    """Ants on the floor, each with a goal."""

    def __init__(self, seed, ants=ENVS):
        path = Path(gymnasium.__file__).parent / "envs/mujoco/assets/ant.xml"
        self.model = mujoco.MjModel.from_xml_path(str(path))
        self.worlds = Worlds(self.model, nsim=ants, nthread=1, persistent=True)
        self.qpos, self.qvel, self.ctrl, self.warm = (
            self.worlds.bind(k) for k in ("qpos", "qvel", "ctrl", "qacc_warmstart")
        )
        self.rng = np.random.default_rng(seed)
        self.goal, self.steps = np.zeros((ants, 2)), self.rng.integers(0, LIMIT, ants)
        self.reset(np.ones(ants, bool))

    def reset(self, mask):
        n = int(mask.sum())
        qpos = np.tile(self.model.key_qpos[0] if self.model.nkey else self.model.qpos0, (n, 1))
        yaw = self.rng.uniform(-math.pi, math.pi, n)
        qpos[:, 2] = self.rng.uniform(0.5, 0.8, n)
        qpos[:, 3:7] = np.stack([np.cos(yaw / 2), 0 * yaw, 0 * yaw, np.sin(yaw / 2)], 1)
        qpos[:, 7:] = [0, 1, 0, -1, 0, -1, 0, 1]
        qpos[:, 7:] += self.rng.uniform(-0.3, 0.3, (n, 8))
        self.qpos[mask], self.qvel[mask], self.warm[mask] = qpos, self.rng.normal(0, 0.1, (n, 14)), 0
        self.new_goals(mask)

    def new_goals(self, mask):
        n = int(mask.sum())
        angle, distance = self.rng.uniform(-math.pi, math.pi, n), self.rng.uniform(1, 6, n)
        self.goal[mask] = self.qpos[mask, :2] + distance[:, None] * np.stack(
            [np.cos(angle), np.sin(angle)], 1
        )

    def look(self):
        return Quarter.of(self.qpos, self.qvel, self.goal)

    def step(self, motors):
        """What the ants see next (n, 28), reward, falls, speed and goals reached (n,); then new episodes."""
        self.ctrl[:] = motors
        before = np.linalg.norm(self.goal - self.qpos[:, :2], axis=1)
        self.worlds.step(nstep=SUBSTEPS)
        after = np.linalg.norm(self.goal - self.qpos[:, :2], axis=1)
        speed = (before - after) / (SUBSTEPS * self.model.opt.timestep)
        reached = after < NEAR
        if reached.any():
            self.new_goals(reached)
        seen = self.look().seen
        fell = (seen[:, 3] < 0.2) | (seen[:, 0] < 0.2) | ~np.isfinite(seen).all(1)
        reward = np.minimum(speed, FASTEST) + seen[:, 3] - 0.02 * np.square(motors).sum(1)
        self.steps += 1
        over = fell | (self.steps >= LIMIT)
        if over.any():
            self.reset(over)
            self.steps[over] = 0
        return np.nan_to_num(seen), np.where(fell, 0, reward), fell, speed, reached


def export(path, layers):
    """Writes the linear layers' weights as plain arrays; of the last one those of the 8 actions alone."""
    linear = [m for m in layers if isinstance(m, torch.nn.Linear)]
    pairs = [(m.weight.detach().numpy(), m.bias.detach().numpy()) for m in linear]
    pairs[-1] = tuple(array[:8] for array in pairs[-1])  # without log std
    arrays = {
        f"{name}{i}": array for i, pair in enumerate(pairs) for name, array in zip("wb", pair, strict=True)
    }
    with replacing(path) as partial, open(partial, "wb") as file:
        np.savez(file, **arrays)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--updates", type=int, default=600_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    agent = build_agent(AGENT, {"name": "state"}, ObsSpec((), 1, SEEN), 8, "cpu", args.seed)
    agent.go_online()
    kept = {
        "seen": torch.zeros(KEEP, SEEN),
        "next": torch.zeros(KEEP, SEEN),
        "action": torch.zeros(KEEP, 8),
        "reward": torch.zeros(KEEP),
        "fell": torch.zeros(KEEP),
    }
    done = stored = 0
    saved = args.out / "checkpoint.pt"
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        agent.load_state_dict(state["agent"])
        agent.load_train_state(state["train"])
        done = state["updates"]
    field = Field(args.seed + done)
    shake = np.random.default_rng(args.seed + done)
    level = np.where(np.arange(ENVS) % 2, NOISE, 0.0)[:, None]
    rng = torch.Generator().manual_seed(args.seed + done)
    pixels = torch.zeros(1, 0, 3, 1, 1, dtype=torch.uint8)
    recent, started, written = [], time.time(), time.time()
    first_batch = stored + 5000 if not done else 20_000
    while done < args.updates:
        quarter = field.look()
        seen = torch.tensor(quarter.seen, dtype=torch.float32)
        if not done and stored < first_batch:
            action = torch.rand(ENVS, 8, generator=rng) * 2 - 1
        else:
            action = agent.act(Obs(pixels.expand(ENVS, -1, -1, -1, -1), seen), deterministic=False)
        motors = quarter.motors(action.double().numpy()) + level * shake.standard_normal((ENVS, 8))
        after, reward, fell, speed, reached = field.step(np.clip(motors, -1, 1))
        at = (stored + torch.arange(ENVS)) % KEEP
        kept["seen"][at], kept["action"][at] = seen, action
        kept["next"][at] = torch.tensor(after, dtype=torch.float32)
        kept["reward"][at], kept["fell"][at] = torch.tensor(reward).float(), torch.tensor(fell).float()
        stored += ENVS
        recent.append((reward.mean(), fell.mean(), speed.mean(), reached.mean()))
        if stored < first_batch:
            continue
        for _ in range(PER_STEP):
            pick = torch.randint(min(stored, KEEP), (256,), generator=rng)
            empty = pixels.expand(256, -1, -1, -1, -1)
            info = agent.update(
                Batch(
                    Obs(empty, kept["seen"][pick]),
                    kept["action"][pick],
                    kept["reward"][pick],
                    Obs(empty, kept["next"][pick]),
                    kept["fell"][pick],
                    torch.zeros(256),
                )
            )
            done += 1
        if done % 1000 < PER_STEP:
            reward, fell, speed, reached = np.mean(recent, 0)
            recent = []
            row = [done, stored, round(time.time() - started), reward, fell, speed, reached]
            row += [float(info[k]) for k in ("critic/q_data", "critic/td_loss", "temperature/alpha")]
            with open(args.out / "log.csv", "a", newline="") as file:
                csv.writer(file).writerow([f"{v:.5g}" for v in row])
        if time.time() - written > 300 or done >= args.updates:
            with replacing(saved) as partial:
                torch.save(
                    {"agent": agent.state_dict(), "train": agent.train_state(), "updates": done}, partial
                )
            export(args.out / "walker.npz", agent.actor.layers)
            written = time.time()


if __name__ == "__main__":
    main()
