"""A sweep on a real Ray of this machine: a worker is killed, and the run ends as if nothing had happened."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from caliper.launching.job import finished
from tests.caliper.training.test_resume import evaluations, table

pytestmark = pytest.mark.slow
SECONDS = 300


def worker(name):
    """The process of Ray's that sees a run through, which has given itself the task's name."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(f"ray::{name}".encode()):
                return int(path.parent.name)
        except OSError:  # it has ended meanwhile
            continue
    return None


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (the extra ray)")
def test_a_run_whose_worker_is_killed_ends_as_an_unbroken_one(words, tmp_path):
    line = words("online.env_steps=300", "seed=5")
    caliper = [sys.executable, "-m", "caliper"]
    whole = tmp_path / "whole"
    subprocess.run([*caliper, "train", *line, f"run_dir={whole}"], check=True, capture_output=True)
    sweep = [*caliper, "sweep", *line, "launcher=ray", f"sweep.dir={tmp_path / 'sweep'}"]
    folder = tmp_path / "sweep" / "run"
    env = os.environ | {"RAY_worker_niceness": "0"}  # by 15 otherwise: beside other tests it hardly moves
    driver = subprocess.Popen(sweep, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env)
    deadline = time.monotonic() + SECONDS
    try:
        while not list(folder.glob("evaluations/online_*")):
            assert time.monotonic() < deadline and driver.poll() is None
            time.sleep(0.05)
        os.kill(worker("run"), signal.SIGKILL)
        _, said = driver.communicate(timeout=SECONDS)
    finally:
        driver.kill()  # and with it its Ray
    assert driver.returncode == 0, said
    assert finished(folder) and "1 running" in said and "1 finished" in said
    log = (tmp_path / "sweep" / "run.log").read_text()
    assert "stopped and saved" in log and "caliper resume" in log  # by its leash, and by the second worker
    assert table(folder) == table(whole) and evaluations(folder) == evaluations(whole)
