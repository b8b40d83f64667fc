"""The check of a GPU, rehearsed on Warp's CPU device with an empty cache of kernels."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("kernels", "self_test", "parity", "sim", "replay", "learner", "run")


def test_the_limits_of_all_parts_are_nine_minutes():
    lines = (ROOT / "benchmarks" / "gpu_check.sh").read_text().splitlines()
    words = [line.split() for line in lines if re.match(r"part [a-z_]+ \d", line)]
    limits = {name: int(limit) for _, name, limit, *_ in words}
    assert tuple(limits) == PARTS and sum(limits.values()) <= 540


@pytest.mark.slow
def test_a_rehearsal_passes_with_every_part(tmp_path):
    own = {"PYTHON": sys.executable, "DEVICE": "cpu", "WARP_CACHE_PATH": str(tmp_path / "cache")}
    command = [ROOT / "benchmarks" / "gpu_check.sh", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | own)
    assert done.returncode == 0, done.stdout
    parts = {name: json.loads((tmp_path / "out" / f"{name}.json").read_text()) for name in PARTS}
    for name, part in parts.items():
        assert part["status"] == 0 and not part["cut short"] and 0 < part["seconds"] <= part["limit"], name
    assert parts["self_test"]["result"]["well"]
    for name in ("report.html", "metrics.csv", "learning_curve.png", "rollouts.mp4"):
        assert (tmp_path / "out" / name).stat().st_size > 0
