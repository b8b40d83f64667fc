"""A real Slurm of one node: the ranks of a run as tasks of a step."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from caliper.cli import main
from caliper.training.checkpoint import load_checkpoint
from tests.caliper.training.processes import start, statuses
from tests.caliper.training.test_resume import assert_equal, evaluations, table

pytestmark = pytest.mark.slow
CALIPER = [sys.executable, "-m", "caliper"]
SECONDS = 1500


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


def test_two_tasks_of_a_step_are_two_ranks_of_a_run(words, cluster, tmp_path):
    of_slurm, other = tmp_path / "slurm", tmp_path / "other"
    step = ["srun", "--ntasks=2", *CALIPER, "train", *words(f"run_dir={of_slurm}")]
    told = cluster | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29513"}
    done = subprocess.run(step, env=told, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    assert "rank 0 of 2" in done.stdout and (of_slurm / "report.html").exists()
    numbers = start(2, lambda _: main(["train", *words(f"run_dir={other}")]), tmp_path)
    assert statuses(numbers, SECONDS) == [0, 0], (tmp_path / "0.err").read_text()
    for rank in (0, 1):
        (weights, state), (expected, its) = (load_checkpoint(run, rank) for run in (of_slurm, other))
        assert all(torch.equal(weights[name], expected[name]) for name in expected)
        assert_equal(state, its)
    assert table(of_slurm) == table(other) and evaluations(of_slurm) == evaluations(other)
