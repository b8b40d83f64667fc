"""Updates per CPU second under a frozen pretrained encoder: its features kept, or images encoded.

The agent is that of preset=pick_place_tray_demo, with smaller batches; the weights are random, for how long
a network takes does not depend on them. Observations are noise in buffers of the run's own kind. The two
take turns, so that what else the machine does meets both. Also how long a frame takes on its way into the
buffer.

    python benchmarks/pretrained.py            # full, writes benchmarks/results/pretrained.json
    python benchmarks/pretrained.py --quick    # under 50 s, writes nothing
"""

import os
import time

import numpy as np
import torch
from _common import arguments, report  # type: ignore[import-not-found]  # beside this script

from caliper.config.build import (
    action_length,
    learner_spec,
    make_agent,
    obs_spec,
    reward_config,
)
from caliper.config.compose import compose
from caliper.data.buffer import ReplayBuffer
from caliper.encoders.pretrained import frozen_backbone, see
from caliper.types import Obs

BATCH = 32  # the preset's 256 would take about a minute an update without the cache, at 224 pixels
SIZES = (64, 224)  # as the cameras give them, and as the network was trained
FRAMES = 65
ROUNDS, CACHED_UPDATES = 2, 20


def noise(spec, count):
    """Single frames."""
    tensors = {"proprio": torch.randn(count, spec.proprio)}
    for name, plane in spec.planes.items():
        shape = (count, *plane.shape)
        tensors[name] = (
            torch.randint(0, 256, shape, dtype=plane.dtype)
            if plane.dtype == torch.uint8
            else torch.randn(shape)
        )
    return Obs.of(tensors)


def learner(config):
    """An agent, and a buffer with an episode of noise."""
    spec, actions = learner_spec(config), action_length(config)
    buffer = ReplayBuffer(FRAMES, spec, actions, reward_config(config))
    buffer.add_episode(
        noise(spec, FRAMES), torch.rand(FRAMES - 1, actions), torch.zeros(FRAMES - 1), terminated=True
    )
    return make_agent(config, "cpu"), buffer


def seconds(agent, buffer, updates, generator):
    """CPU seconds of one update, on the average: the one thread's own, whoever else is there."""
    start = time.process_time()
    for _ in range(updates):
        agent.update(buffer.sample(BATCH, generator))
    return (time.process_time() - start) / updates


def compared(size, rounds):
    """Medians and all that was measured with images brought to `size` pixels."""
    words = ["preset=pick_place_tray_demo", "device=cpu", "encoder=pretrained", "encoder.weights=random"]
    words.append(f"encoder.size={size}")
    kept, seen = compose(words), compose([*words, "encoder.cached=false"])
    pairs = {"cached": learner(kept), "not": learner(seen)}
    updates = {"cached": CACHED_UPDATES, "not": 1}
    generator = torch.Generator().manual_seed(0)
    taken = {"cached": [], "not": []}
    for round_ in range(rounds + 1):
        for name, (agent, buffer) in pairs.items():
            duration = seconds(agent, buffer, updates[name], generator)
            if round_:  # the first warms up
                taken[name].append(duration)
    spec = obs_spec(kept)
    backbone, frames = frozen_backbone(kept.encoder, "cpu"), noise(spec, 16)
    with torch.no_grad():
        see(backbone, frames[:2], spec.planes)
        start = time.process_time()
        see(backbone, frames, spec.planes)
        frame = (time.process_time() - start) / len(frames)
    ours, peer = (1 / float(np.median(taken[name])) for name in ("cached", "not"))
    return {
        "cached": round(ours, 2),
        "not": round(peer, 4),
        "ratio": round(ours / peer, 1),
        "seconds": {name: [round(x, 4) for x in values] for name, values in taken.items()},
        "milliseconds_per_frame_once": round(1e3 * frame, 2),
    }


def main(quick):
    """Measures and reports."""
    torch.set_num_threads(1)
    load = [os.getloadavg()[0]]
    results = {}
    for size in SIZES[: 1 if quick else None]:
        results[size] = compared(size, 1 if quick else ROUNDS)
        print(size, results[size], flush=True)
        load.append(os.getloadavg()[0])
    config = compose(["preset=pick_place_tray_demo", "encoder=pretrained"])
    spec, last = obs_spec(config), results[size]
    report(
        "pretrained",
        last["cached"],
        last["not"],
        last["ratio"],
        f"updates per CPU second of one thread under a frozen resnet18 at {size} pixels: features kept "
        "against images encoded at each update",
        ("torch", "torchvision"),
        quick,
        by_encoder_size=results,
        batch=BATCH,
        cameras=len(spec.cameras),
        image_side=spec.sizes[0][0],
        bytes_per_frame={
            "features": learner_spec(config).features * 4 * len(spec.cameras),
            "images": spec.image_bytes,
        },
        load_average=[round(x, 1) for x in load],
        note="other programs used the same two cores: see load_average",
    )


if __name__ == "__main__":
    main(arguments(__doc__).quick)
