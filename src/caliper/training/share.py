"""What one rank of several takes of a run: its part of each batch, of the envs and of the online buffer."""

from __future__ import annotations

from dataclasses import replace

import torch

from caliper.config.devices import learner_device
from caliper.config.estimate import refuse_too_many_runs
from caliper.config.schema import RunConfig
from caliper.errors import CaliperError
from caliper.machine import cores
from caliper.utils.ranks import Ranks

SEEDS = 1024  # between the seeds of two ranks: other batches, other noise, other episodes


def share(config: RunConfig, ranks: Ranks) -> RunConfig:
    """The configuration of a rank, where the run's is of all together.

    Updates, environment steps and evaluation episodes stay those of the whole.

    Raises:
        CaliperError: what has to be divided does not divide; names the key and the ranks.
    """
    at = ranks.place
    if at.count == 1:
        return config
    divided = {"batch_size": config.batch_size, "online.num_envs": config.online.num_envs}
    for key, value in divided.items():
        if value % at.count:
            next_one = -(-value // at.count) * at.count
            raise CaliperError(f"{key}={value} does not divide among {at.count} ranks; try {next_one}")
    online, evaluation = config.online, config.evaluation
    part = replace(
        config,
        seed=config.seed + SEEDS * at.rank,
        threads=config.threads or max(1, cores() // at.local_count),
        device=_device(config, ranks),
        batch_size=config.batch_size // at.count,
        online=replace(
            online, num_envs=online.num_envs // at.count, capacity=max(2, online.capacity // at.count)
        ),
        evaluation=replace(evaluation, num_envs=-(-evaluation.num_envs // at.count)),
    )
    beside = range(at.local_count)
    of_machine = [replace(part, device=_device(config, ranks, i)) for i in beside]
    refuse_too_many_runs(of_machine, at.local_count, "--nproc-per-node")
    return part


def _device(config: RunConfig, ranks: Ranks, local: int | None = None) -> str:
    """The learner's: of each rank on a machine another GPU."""
    device = learner_device(config)
    if device == "cpu":
        return device
    if ":" in device:
        raise CaliperError(
            f"device={device} is one GPU, and there are {ranks.count} ranks; say device=cuda, and each takes "
            "its own"
        )
    at, gpus = ranks.place, torch.cuda.device_count()
    if 1 < gpus < at.local_count:
        raise CaliperError(
            f"{at.local_count} ranks on a machine with {gpus} GPUs; start at most {gpus} there"
        )
    # A scheduler may show each rank its own GPU alone.
    return f"cuda:{(at.local if local is None else local) % gpus}"
