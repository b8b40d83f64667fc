"""A real Slurm of one node: ranks as tasks of a step; sweeps whose jobs meet their limit, or are killed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from caliper.cli import main
from caliper.training import run as train_module
from caliper.training.checkpoint import load_checkpoint
from caliper.training.run import train
from tests.caliper.tools.test_sweep import running
from tests.caliper.training.processes import start, statuses
from tests.caliper.training.test_resume import assert_equal, assert_same_run, evaluations, table

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


LONG = "online.env_steps=300"  # long enough to be met in its midst


@pytest.fixture(scope="module")
def unbroken(configure, tmp_path_factory):
    """What `assert_same_run` compares with: the long run of a seed, in peace."""

    def make(seed):
        run = tmp_path_factory.mktemp("unbroken") / f"seed={seed}"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(train_module, "write_report", lambda folder: folder / "report.html")
            train(configure(LONG, f"seed={seed}", f"run_dir={run}"))
        return SimpleNamespace(folder=run)

    return make


@pytest.fixture
def sweep(words, cluster, tmp_path):
    """Starts one on Slurm with more words; gives its process. What is left of it is killed in the end."""
    started = []

    def begin(*more):
        line = [*CALIPER, "sweep", *words(LONG, *more), "launcher=slurm", f"sweep.dir={tmp_path / 'sweep'}"]
        with open(tmp_path / "said.txt", "a") as said:
            started.append(subprocess.Popen(line, stdout=said, stderr=said, env=cluster))
        return started[-1]

    yield begin
    for driver in started:
        driver.kill()
        driver.wait()
    subprocess.run(["scancel", "--me"], env=cluster, check=True, timeout=SECONDS)


def until(true, driver=None):
    """Waits for something while a process is there."""
    deadline = time.monotonic() + SECONDS
    while not (found := true()):
        assert time.monotonic() < deadline and (driver is None or driver.poll() is None)
        time.sleep(0.05)
    return found


def online(run):
    """Whether a run is in the midst of its second phase."""
    return list(run.glob("evaluations/online_*"))


def begins(run):
    """The command lines with which a run was begun and gone on with."""
    return [line for line in run.with_name(f"{run.name}.log").read_text().splitlines() if line[:2] == "$ "]


def process_of(run):
    """The process of a run that is under way, of whose command line the folder is the last word."""
    return running(begins(run)[-1].split()[-1])


def test_a_run_that_meets_its_time_limit_is_requeued_and_ends_as_an_unbroken_one(sweep, unbroken, tmp_path):
    folder = tmp_path / "sweep"
    driver = sweep("seed=5", "sweep.slurm.minutes=4", "sweep.slurm.cpus=1")
    until(lambda: online(folder / "run"), driver)

    def told():
        return sum(log.read_text().count("Caught signal") for log in folder.glob(".slurm/*_log.out"))

    turns, pid = told(), process_of(folder / "run")
    os.kill(pid, signal.SIGSTOP)  # so that the small run lasts longer than its turn
    try:
        until(lambda: told() > turns, driver)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert driver.wait(SECONDS) == 0, (tmp_path / "said.txt").read_text()
    assert "stopped and saved" in (folder / "run.log").read_text() and "resume" in begins(folder / "run")[-1]
    assert len(list(folder.glob(".slurm/[0-9]*.sh"))) == 1  # the job itself went back into the queue
    assert_same_run(folder / "run", unbroken(5))


def test_after_a_killed_driver_and_a_killed_job_the_same_command_goes_on(sweep, unbroken, tmp_path):
    folder = tmp_path / "sweep"
    line = ("seed=5,6", "sweep.jobs=2", f"sweep.slurm.cpus={os.cpu_count()}")  # so that one of them waits
    driver = sweep(*line)
    runs = {seed: folder / f"seed={seed}" for seed in (5, 6)}
    notes = {seed: folder / ".slurm" / f"seed={seed}.job" for seed in runs}
    until(lambda: online(runs[5]), driver)
    numbers = {seed: note.read_text() for seed, note in notes.items()}
    driver.kill()
    stat = Path(f"/proc/{process_of(runs[5])}/stat").read_text().rpartition(") ")[2].split()
    os.kill(int(stat[1]), signal.SIGKILL)  # the job's process, of which the run is a child
    assert sweep(*line).wait(SECONDS) == 0, (tmp_path / "said.txt").read_text()
    assert notes[5].read_text() != numbers[5] and len(begins(runs[5])) == 2
    assert notes[6].read_text() == numbers[6] and len(begins(runs[6])) == 1  # found again in the queue
    for seed, run in runs.items():
        assert_same_run(run, unbroken(seed))
