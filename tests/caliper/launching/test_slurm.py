"""A real Slurm of one node: a time limit, and ranks of one run as tasks of a step."""

import csv
import os
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from caliper.cli import main
from caliper.launching.job import finished
from caliper.training.checkpoint import load_checkpoint
from tests.caliper.training.processes import start, statuses
from tests.caliper.training.test_resume import assert_equal, evaluations, table

pytestmark = pytest.mark.slow
CALIPER = [sys.executable, "-m", "caliper"]
SECONDS = 1500
LIMIT = 3  # minutes; a job is told to save 45 seconds before
ONLINE = 200  # seconds that the online phase shall take, more than the limit leaves


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The environment in which Slurm's commands find it."""
    if os.geteuid() or not all(map(shutil.which, ("slurmctld", "slurmd", "sbatch", "munged"))):
        pytest.skip("needs root, slurm-wlm and munge")
    folder = tmp_path_factory.mktemp("slurm")
    try:
        subprocess.run([Path(__file__).with_name("slurm.sh"), folder], check=True, timeout=90)
        yield os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
    finally:
        for name in ("slurmd", "slurmctld"):
            if (pid := folder / f"{name}.pid").exists():
                os.kill(int(pid.read_text()), signal.SIGTERM)


def same(folder, other, ranks=1):
    """Whether two runs have ended as one, to the bit."""
    for rank in range(ranks):
        (weights, state), (expected, its) = (load_checkpoint(run, rank) for run in (folder, other))
        assert all(torch.equal(weights[name], expected[name]) for name in expected)
        assert_equal(state, its)
    assert table(folder) == table(other) and evaluations(folder) == evaluations(other)


def test_two_tasks_of_a_step_are_two_ranks_of_a_run(words, cluster, tmp_path):
    of_slurm, other = tmp_path / "slurm", tmp_path / "other"
    step = ["srun", "--ntasks=2", *CALIPER, "train", *words(f"run_dir={of_slurm}")]
    told = cluster | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29513"}
    done = subprocess.run(step, env=told, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    assert "rank 0 of 2" in done.stdout and (of_slurm / "report.html").exists()
    assert statuses(start(2, lambda _: main(["train", *words(f"run_dir={other}")]), tmp_path), SECONDS) == [
        0,
        0,
    ]
    same(of_slurm, other, ranks=2)


def steps_in(seconds, line, folder):
    """How many environment steps a run makes in so many seconds, from a short one."""
    subprocess.run([*CALIPER, "train", *line, "online.env_steps=600", f"run_dir={folder}"], check=True)
    with open(folder / "metrics.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["phase"] == "online"]
    first, last = ({key: float(row[key]) for key in ("env_steps", "wall_s")} for row in (rows[0], rows[-1]))
    return round(seconds * (last["env_steps"] - first["env_steps"]) / (last["wall_s"] - first["wall_s"]))


@pytest.mark.skipif(find_spec("submitit") is None, reason="submitit is not installed (the extra slurm)")
def test_a_run_that_meets_its_time_limit_is_requeued_and_goes_on_exactly(words, cluster, tmp_path):
    line = words("online.eval_every=1000", "log.every=50")
    line.append(f"online.env_steps={steps_in(ONLINE, line, tmp_path / 'short')}")
    sweep = [*CALIPER, "sweep", *line, "launcher=slurm", f"sweep.dir={tmp_path / 'sweep'}"]
    sweep += [f"sweep.slurm.minutes={LIMIT}", "sweep.slurm.cpus=1"]
    driver = subprocess.Popen(
        sweep, env=cluster, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    whole = tmp_path / "whole"
    subprocess.run([*CALIPER, "train", *line, f"run_dir={whole}"], check=True)
    _, said = driver.communicate(timeout=SECONDS)
    folder = tmp_path / "sweep" / "run"
    assert driver.returncode == 0 and finished(folder), said
    log = (tmp_path / "sweep" / "run.log").read_text()
    turns = [text for text in log.splitlines() if text.startswith("$ ")]
    assert "caliper train" in turns[0] and len(turns) > 1
    assert all("caliper resume" in turn for turn in turns[1:]) and "stopped and saved" in log
    same(folder, whole)
