"""One run on several ranks: it is the run of one process with all their batches, and ends as one."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from caliper.agents import Noise
from caliper.cli import main
from caliper.config.build import eval_seeds, make_agent, make_envs, reward_config
from caliper.config.compose import load
from caliper.errors import CaliperError
from caliper.rollout.evaluation import evaluate
from caliper.training.checkpoint import load_checkpoint
from caliper.training.run import resume
from caliper.training.share import share
from caliper.training.together import GradientAverage, Together
from caliper.training.trainer import Trainer
from caliper.types import ObsSpec
from caliper.utils.ranks import Place, Ranks, place, resume_command
from tests.agents.conftest import ACTIONS, PIXELS, make, random_batch
from tests.caliper.training.processes import start, statuses
from tests.caliper.training.test_resume import assert_equal, evaluations, table

B = 8
PATIENCE = 900  # seconds for what takes a minute on a machine of its own
STATE = ObsSpec((), 0, 5)


def noise(seed, shifted):
    """All that an update of Cal-QL or of FQL draws, for B transitions."""
    g = torch.Generator().manual_seed(seed)

    def normal(k):
        return torch.randn(B, k, ACTIONS, generator=g)

    def shift():
        return torch.randint(-4, 5, (B, 2), generator=g) if shifted else None

    uniform = 2 * torch.rand(B, 3, ACTIONS, generator=g) - 1
    flow = {"eps_flow": normal(1), "time": torch.rand(B, 1, 1, generator=g)}
    target = normal(2)
    return Noise(normal(1), target, normal(3), normal(3), uniform, **flow, shift=shift(), shift_next=shift())


def part(whole, rank, count):
    """A rank's rows of a batch, of observations, or of noise."""
    if isinstance(whole, torch.Tensor):
        return whole[rank * len(whole) // count : (rank + 1) * len(whole) // count]
    if whole is None or not dataclasses.is_dataclass(whole):
        return whole
    names = [f.name for f in dataclasses.fields(whole)]
    return dataclasses.replace(whole, **{n: part(getattr(whole, n), rank, count) for n in names})


def course(name, spec, updates, rank=0, count=1, mean=dict, prepare=lambda agent: None):
    """Metrics of many updates on a rank's part of the same batches, and the weights that come of it.

    Some only clone, with an optimiser of its own for parameters that others have, too.
    """
    agent = make(name, "conv_tiny" if spec.cameras else "state", spec=spec)
    prepare(agent)
    found = []
    for seed in range(updates):
        learn = agent.bc_update if seed % 5 == 2 else agent.update
        rows = random_batch(B, spec, seed=seed % 5), noise(seed, bool(spec.cameras))
        found.append(mean(learn(*(part(whole, rank, count) for whole in rows))))
    return found, agent.state_dict()


COURSES = [("calql", STATE, 50), ("calql", PIXELS, 5), ("fql", STATE, 5)]


@pytest.mark.parametrize(("name", "spec", "updates"), COURSES, ids=["state", "pixels", "fql"])
def test_two_ranks_make_the_updates_of_one_with_both_batches(name, spec, updates, tmp_path):
    def work(rank):
        ranks = Together(place())

        def prepare(agent):  # buckets so small that there are several, and parameters without gradient
            GradientAverage(agent.optimizers.values(), 2, bucket=2_000)

        torch.save(course(name, spec, updates, rank, 2, ranks.mean, prepare), tmp_path / f"{rank}.pt")
        ranks.leave()

    metrics, weights = course(name, spec, updates)  # first, so that the processes find everything imported
    assert statuses(start(2, work, tmp_path)) == [0, 0], (tmp_path / "0.err").read_text()
    (ours, own), (theirs, others) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert all(torch.equal(own[name], others[name]) for name in own)
    for step in range(updates):
        torch.testing.assert_close(ours[step], metrics[step], rtol=1e-5, atol=1e-6)
        assert all(torch.equal(ours[step][name], theirs[step][name]) for name in ours[step])
    # Adam divides by a gradient's size: where that is next to nothing, the rounding of sums shows.
    torch.testing.assert_close(own, dict(weights), rtol=1e-5, atol=1e-5)


DIES_AT = 3  # updates


@pytest.fixture(scope="module")
def killed(words, finished, tmp_path_factory):
    """The folder of a run whose second rank was killed, how the ranks ended, and what they said.

    `finished` has imported what they need.
    """
    place = tmp_path_factory.mktemp("killed")
    command = words(f"run_dir={place / 'run'}", "offline.bc_updates=0", "log.checkpoint_minutes=0")

    def work(rank):
        made, update = [], Trainer._update

        def die(trainer, phase):
            made.append(phase)
            if rank == 1 and len(made) == DIES_AT:
                os.kill(os.getpid(), signal.SIGKILL)
            update(trainer, phase)

        Trainer._update = die
        main(["train", *command])

    ended = statuses(start(2, work, place))
    return place / "run", ended, [(place / f"{rank}.err").read_text() for rank in (0, 1)]


def test_a_killed_rank_ends_the_run_with_a_sentence(killed):
    folder, ended, (said, _) = killed
    assert ended == [2, -signal.SIGKILL], said
    told = [line for line in said.splitlines() if line.startswith("caliper: ")]
    assert len(told) == 1 and said.count("Traceback") == 0
    assert told[0].startswith("caliper: another rank of the run is gone (")
    assert told[0].endswith(
        f"go on from the last checkpoint with: torchrun --nproc-per-node 2 -m caliper resume {folder}"
    )


def test_what_it_leaves_can_be_resumed_by_as_many(killed):
    folder = killed[0]
    (weights, first), (same, second) = (load_checkpoint(folder, rank) for rank in (0, 1))
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    assert first["counters"] == second["counters"] and 0 < first["counters"]["updates"] < DIES_AT
    assert not torch.equal(first["generator"], second["generator"])
    assert first["env"]["seeds"].tolist() != second["env"]["seeds"].tolist()
    with pytest.raises(
        CaliperError, match=r"made on 2 ranks, and this is 1: its envs, .* --nproc-per-node 2"
    ):
        resume(folder, load(folder / "config.yaml", []))


def test_an_evaluation_does_not_depend_on_the_ranks(killed):
    folder = killed[0]
    config = load(folder / "config.yaml", [])
    agent, env = make_agent(config, "cpu"), make_envs(config, config.evaluation.num_envs)
    seeds = eval_seeds(config, config.evaluation.episodes)
    result, calibration = evaluate(agent, env, seeds, reward_config(config), "offline")
    place = folder / "evaluations" / "offline_00000000_00000000"
    saved = json.loads((place / "evaluation.json").read_text())
    assert saved | json.loads(json.dumps(asdict(result))) == saved
    with np.load(place / "calibration.npz") as arrays:
        for name, expected in calibration.items():
            # Products of other numbers of rows are rounded otherwise.
            np.testing.assert_allclose(arrays[name], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["batch_size=9"], "batch_size=9 does not divide among 2 ranks; try 10"),
        (["online.num_envs=3"], "online.num_envs=3 does not divide among 2 ranks; try 4"),
    ],
)
def test_what_does_not_divide_is_refused(given, sentence, configure):
    ranks = Ranks()
    ranks.place = Place(1, 2, 1, 2)
    with pytest.raises(CaliperError, match=sentence):
        share(configure(*given), ranks)


def test_a_rank_takes_its_part(configure):
    ranks = Ranks()
    ranks.place = Place(3, 4, 3, 4)
    config = configure("batch_size=12", "online.num_envs=8", "online.capacity=400", "evaluation.num_envs=5")
    part = share(config, ranks)
    assert (part.batch_size, part.online.num_envs, part.online.capacity, part.evaluation.num_envs) == (
        3,
        2,
        100,
        2,
    )
    assert part.seed != config.seed and part.online.env_steps == config.online.env_steps
    assert ranks.share("abcdefghij") == ["d", "h"]


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({}, Place()),
        ({"RANK": "1", "WORLD_SIZE": "2"}, Place()),
        ({"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}, Place()),
        (
            {"MASTER_ADDR": "a", "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"},
            Place(5, 8, 1, 4),
        ),
        (
            {
                "MASTER_ADDR": "a",
                "SLURM_PROCID": "5",
                "SLURM_STEP_NUM_TASKS": "8",
                "SLURM_STEP_NUM_NODES": "2",
                "SLURM_LOCALID": "1",
            },
            Place(5, 8, 1, 4),
        ),
    ],
    ids=["nothing", "no address", "srun of several runs", "torchrun", "srun"],
)
def test_the_place_is_what_the_launcher_says(told, expected, monkeypatch):
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    for name in ("MASTER_ADDR", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert place() == expected


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("WORLD_SIZE", "abc", "WORLD_SIZE=abc, which is no number from 1"),
        ("WORLD_SIZE", "0", "WORLD_SIZE=0, which is no number from 1"),
        ("RANK", "2", "RANK=2, which is no number from 0 to 1"),
        ("RANK", "-1", "RANK=-1, which is no number from 0 to 1"),
        ("LOCAL_WORLD_SIZE", "", "LOCAL_WORLD_SIZE=, which is no number from 1"),
    ],
)
def test_what_is_no_place_among_ranks_is_one_sentence(variable, value, says, monkeypatch, capsys):
    for name, usual in {"MASTER_ADDR": "a", "RANK": "1", "WORLD_SIZE": "2", variable: value}.items():
        monkeypatch.setenv(name, usual)
    with pytest.raises(SystemExit) as stopped:
        main(["tasks"])
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and said.count("\n") == 1 and says in said and "unset MASTER_ADDR" in said


def test_the_way_on_names_as_many_ranks():
    assert resume_command(Path("a b"), Place()) == "caliper resume 'a b'"
    assert (
        resume_command(Path("r"), Place(0, 8, 0, 4))
        == "torchrun --nnodes 2 --nproc-per-node 4 -m caliper resume r"
    )


def torchrun(*words):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "-m",
        "caliper",
        *words,
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until_rows(folder, count):
    """Waits until a run has logged so much."""
    until = time.monotonic() + PATIENCE
    while not (folder / "metrics.csv").exists() or len(table(folder)) <= count:
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.slow
def test_torchrun_trains_stops_resumes_and_loses_a_rank(words, tmp_path):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    train = ["train", *words("batch_size=8", "offline.updates=30", "online.env_steps=60")]
    run = torchrun(*train, f"run_dir={whole}")
    said, errors = run.communicate(timeout=PATIENCE)
    assert run.returncode == 0, errors
    assert said.count("run folder:") == 2 and "rank 0 of 2: 4 transitions of a batch, 1 envs" in said
    assert (whole / "report.html").exists()
    run = torchrun(*train, f"run_dir={halves}")
    until_rows(halves, 12)
    run.terminate()
    _, errors = run.communicate(timeout=PATIENCE)
    again = f"torchrun --nproc-per-node 2 -m caliper resume {halves}"
    assert errors.count(f"caliper: stopped and saved; go on with: {again}") == 1
    run = torchrun("resume", str(halves))
    until_rows(halves, len(table(halves)) + 8)
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(run.pid)], capture_output=True, text=True)
    os.kill(int(children.stdout.split()[1]), signal.SIGKILL)
    _, errors = run.communicate(timeout=PATIENCE)
    assert run.returncode != 0 and errors.count("caliper: another rank of the run is gone") == 1
    assert f"go on from the last checkpoint with: {again}" in errors
    run = torchrun("resume", str(halves))
    _, errors = run.communicate(timeout=PATIENCE)
    assert run.returncode == 0, errors
    for rank in (0, 1):
        (weights, state), (expected, its) = (load_checkpoint(folder, rank) for folder in (halves, whole))
        assert all(torch.equal(weights[name], expected[name]) for name in expected)
        assert_equal(state, its)
    assert table(halves) == table(whole) and evaluations(halves) == evaluations(whole)
