"""What every benchmark's result holds besides its numbers: the machine, the versions, the date."""

import argparse
import datetime
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results"


def arguments(description):
    """The command line all benchmarks share: `--quick`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="under 50 s; writes no result")
    return parser.parse_args()


def hardware():
    """The processor's name and how many cores this process may use."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if "model name" in line] if info.exists() else []
    name = names[0].split(":")[1].strip() if names else platform.machine()
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


def report(name, ours, peer, ratio, unit, packages, quick, **details):
    """Prints the result as one line of JSON and, unless `quick`, writes benchmarks/results/<name>.json."""
    result = {
        "name": name,
        "ours": ours,
        "peer": peer,
        "ratio": ratio,
        "unit": unit,
        **details,
        "hardware": hardware(),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in packages},
        "date": datetime.date.today().isoformat(),
    }
    if not quick:
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))
