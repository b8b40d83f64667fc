"""Turns the ant's walker into a plain network of what AntMaze's own observations hold.

    python benchmarks/distil_ant.py benchmarks/ant_teacher.npz OUT.npz

The teacher, which `train_ant.py` made, turns what it sees by quarters of a circle until the goal lies ahead.
A network that clones walks recorded from it would have to learn these turns, and falls. The student learns
what the teacher would do in the states that the student itself gets into (DAgger, Ross et al. 2011,
arXiv:1011.0686), half of the ants with noise on their actions. OUT.npz is envs/scripts/ant_walker.npz.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from train_ant import NOISE, Field, export  # type: ignore[import-not-found]  # beside this script

from caliper.envs.scripts.ant import SEEN, seen

ANTS, HIDDEN, BATCH, PER_STEP = 64, 128, 256, 4
KEEP, FIRST = 800_000, 6_400  # pairs kept, and before the first update
RATE = 1e-3  # Adam's, which falls to a hundredth
ALONE = 0.3  # of the updates, after which the student alone drives
CHANGE = 0.02  # chance that who drives an ant is drawn anew in a step


class Teacher:
    """The walker that `train_ant.py` wrote."""

    def __init__(self, path):
        with np.load(path) as file:
            self.layers = [(file[f"w{i}"], file[f"b{i}"]) for i in range(len(file.files) // 2)]

    def motors(self, quarter):
        """Controls (n, 8) where it sees `quarter`."""
        x = quarter.seen.astype(np.float32)
        for i, (weight, bias) in enumerate(self.layers):
            x = (np.maximum(x, 0) if i else x) @ weight.T + bias
        return quarter.motors(np.tanh(x).astype(np.float64))


def main():
    """Writes the student, and prints how it does when it drives without noise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--updates", type=int, default=40_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    rng, field, teacher = np.random.default_rng(args.seed), Field(args.seed, ANTS), Teacher(args.teacher)
    student = nn.Sequential(
        nn.Linear(SEEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 8)
    )
    optimizer = torch.optim.Adam(student.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, args.updates)
    inputs, labels = torch.zeros(KEEP, SEEN), torch.zeros(KEEP, 8)
    by_teacher, level = np.ones(ANTS, bool), np.where(np.arange(ANTS) % 2, NOISE, 0.0)[:, None]
    done = stored = 0
    recent, started = [], time.time()
    while done < args.updates:
        x = torch.tensor(seen(field.qpos, field.qvel, field.goal), dtype=torch.float32)
        label = teacher.motors(field.look())
        with torch.no_grad():
            action = torch.tanh(student(x)).double().numpy()
        anew = rng.random(ANTS) < CHANGE
        by_teacher = np.where(anew, rng.random(ANTS) < 1 - done / (ALONE * args.updates), by_teacher)
        at = (stored + torch.arange(ANTS)) % KEEP
        inputs[at], labels[at] = x, torch.tensor(label, dtype=torch.float32)
        stored += ANTS
        motors = np.where(by_teacher[:, None], label, action) + level * rng.standard_normal((ANTS, 8))
        _, _, fell, speed, reached = field.step(np.clip(motors, -1, 1))
        plain = ~by_teacher & (level[:, 0] == 0)
        if plain.any():
            recent.append((fell[plain].mean(), speed[plain].mean(), reached[plain].mean()))
        if stored < FIRST:
            continue
        for _ in range(PER_STEP):
            pick = torch.randint(min(stored, KEEP), (BATCH,))
            loss = (torch.tanh(student(inputs[pick])) - labels[pick]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            done += 1
        if done % 2000 < PER_STEP and recent:
            explained = 1 - loss.item() / labels[: min(stored, KEEP)].var(0).mean().item()
            falls, speed, reached = np.mean(recent, 0)
            recent = []
            print(
                f"{done} updates, {stored} pairs, {time.time() - started:.0f} s: R2 {explained:.3f}; falls a "
                f"step {falls:.5f}, m/s {speed:.2f}, goals a step {reached:.4f}",
                flush=True,
            )
            export(args.out, student)
    export(args.out, student)


if __name__ == "__main__":
    main()
