"""What every benchmark's result holds besides its numbers: the machine, the versions, the date."""

import argparse
import datetime
import json
import platform
from importlib.metadata import version
from pathlib import Path

import torch

from caliper.machine import cores

RESULTS = Path(__file__).resolve().parent / "results"


def parser(description):
    """The command line all benchmarks share: `--quick`."""
    shared = argparse.ArgumentParser(description=description)
    shared.add_argument("--quick", action="store_true", help="under 50 s; writes no result")
    return shared


def arguments(description):
    """What the shared command line says."""
    return parser(description).parse_args()


def gpu_parser(description):
    """The command line of the benchmarks of a GPU: also `--device`, a GPU if there is one."""
    shared = parser(description)
    shared.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return shared


def synchronise(device):
    """Waits until a device is at rest."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def on_every_core(make, measure):
    """`measure` of the CPU engine with every core; None where Warp has no compiler for the CPU."""
    try:
        env = make(4 * cores(), "batch", "cpu")
    except RuntimeError as error:
        print(f"the CPU engine cannot run here: {str(error).splitlines()[0]}")
        return None
    return measure(env)


def hardware():
    """The processor's name and how many cores this process may use."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if "model name" in line] if info.exists() else []
    name = names[0].split(":")[1].strip() if names else platform.machine()
    return f"{name}, {cores()} cores"


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
