"""What Caliper does with damaged and hostile files: never a traceback, a hang, a crash or a wrong number.

Each mutation spoils one file of a small dataset, run or sweep (`campaigns/mutations.py`, `files.py`) and lets
it be read in a process of its own with 8 GiB and 60 s. What comes of it is counted:

    refused     one sentence of ours
    unchanged   accepted, and everything read is as it was
    told        accepted, and it is said that something is missing, changed or not vouched for
    foreign     accepted: the file, as a stranger's, carries no checksum, and what it says can be used
    and the bad ones: changed (accepted with other values, nothing said), traceback, hang, crash, memory

    python benchmarks/faults.py files                     # 10,000 mutations, writes results/faults.json
    python benchmarks/faults.py files --add --seed 8      # 10,000 others, beside those of earlier times
    python benchmarks/faults.py files --quick             # 400, writes nothing
    python benchmarks/faults.py files --only 1234         # one of them again, with its traceback

And what a run comes to that is killed, stopped, starved of disk, started twice or watched for long:

    python benchmarks/faults.py kills                     # 1,000 times -9, over 24 kinds of runs
    python benchmarks/faults.py kills --add --seed 8      # up to 1,000 with those of earlier times
    python benchmarks/faults.py signals                   # 100 of SIGTERM, SIGINT and SIGHUP
    python benchmarks/faults.py disk                      # full at 50 moments; needs root to mount it
    python benchmarks/faults.py two                       # 30 pairs of processes on one folder
    python benchmarks/faults.py chaos --tool PATH         # ckpt-chaos, of PyPI, at every file boundary
    python benchmarks/faults.py soak --minutes 60         # memory, open files and threads over time
"""

import argparse
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

from campaigns import disturbed  # type: ignore[import-not-found]  # beside this file
from campaigns.chaos import ALL, chaos  # type: ignore[import-not-found]
from campaigns.processes import Bench  # type: ignore[import-not-found]
from campaigns.reading import campaign  # type: ignore[import-not-found]
from campaigns.soak import soak  # type: ignore[import-not-found]

RESULTS = Path(__file__).resolve().parent / "results"
MUTATIONS, QUICK = 10_000, 400
TOTALS = {"mutations": "files"}  # what stands beside the sum of all that went bad
SIZES = {"kills": (1000, 24), "signals": (100, 8), "disk": (50, 4), "two": (30, 3)}  # all of it, and --quick


def stored():
    """What the file of results holds."""
    path = RESULTS / "faults.json"
    return json.loads(path.read_text()) if path.exists() else {"name": "faults"}


def code():
    """The commit of the checkout, and whether files of it are changed."""
    git = ["git", "-C", str(RESULTS)]
    commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "../../src", "../../benchmarks/*.py"])
    return commit.strip() + (" with changes" if changed.returncode else "")


def write(part, result, sitting, add):
    """Puts one campaign's result beside those of the others, or adds it to what the file has of the same one.

    Args:
        part: the campaign.
        result: what came of it.
        sitting: of which code, with which seed and when; one for each time that the campaign was run.
        add: to what the file has.
    """
    held = stored()
    packages = ("h5py", "numpy", "torch", "safetensors", "omegaconf")
    machine = {"versions": {"python": platform.python_version()} | {p: version(p) for p in packages}}
    counted = {key: value for key, value in result.items() if isinstance(value, int)}
    sittings = [sitting | counted]
    if add and part in held:
        sittings = held[part].pop("sittings", []) + sittings
        result = together(held[part], result)
    held[part] = result | machine | {"date": datetime.date.today().isoformat(), "sittings": sittings}
    parts = [value for value in held.values() if isinstance(value, dict)]
    held["bad"] = sum(value["bad"] for value in parts)
    held |= {key: held[key_of][key] for key, key_of in TOTALS.items() if key_of in held}
    (RESULTS / "faults.json").write_text(json.dumps(held, indent=1) + "\n")


def together(one, other):
    """The sums of two results of one campaign, and the examples of both."""
    both = {}
    for key, value in other.items():
        if key == "methods":  # how many kinds: the same ones again
            both[key] = max(one[key], value)
        else:
            both[key] = summed(one[key], value)
    return both


def summed(one, other):
    """The sum of two numbers or lists; of two dicts, that of each of their entries."""
    if not isinstance(one, dict):
        return one + other
    both = one.keys() & other.keys()
    return {**one, **other, **{key: summed(one[key], other[key]) for key in both}}


def of_processes(given):
    """One of the campaigns with runs in processes."""
    place = given.keep or tempfile.mkdtemp(prefix="faults-")
    try:
        bench = Bench(place)
        if given.campaign == "soak":
            return soak(bench, 0.5 if given.quick else given.minutes)
        if given.campaign == "chaos":
            return chaos(bench, given.tool, 6 if given.quick else given.points)
        count = given.count or SIZES[given.campaign][given.quick]
        if given.add:
            count -= stored().get(given.campaign, {}).get(disturbed.COUNTED[given.campaign], 0)
        return getattr(disturbed, given.campaign)(bench, count, given.seed, 60 * given.minutes)
    finally:
        if not given.keep:
            shutil.rmtree(place, ignore_errors=True)


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    choices = ("files", *SIZES, "chaos", "soak")
    parser.add_argument("campaign", nargs="?", choices=choices, default="files")
    parser.add_argument("--quick", action="store_true", help="a small part of it; writes no result")
    parser.add_argument("--mutations", type=int, default=MUTATIONS)
    parser.add_argument("--count", type=int, help="of kills, signals, full disks or pairs")
    parser.add_argument("--minutes", type=float, default=60, help="of the soak; of the others at most")
    parser.add_argument("--tool", default="ckpt-chaos", help="where that program is")
    parser.add_argument(
        "--points", type=int, default=ALL, help="of ckpt-chaos, at most, a method; by default all"
    )
    parser.add_argument(
        "--add", action="store_true", help="to what the results have of files, kills, signals..."
    )
    parser.add_argument("--keep", help="work in this folder and leave it")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--only", type=int, help="number of one mutation, made and read again")
    parser.add_argument("--real", action="store_true", help="open HDF5 files as the program does: slower")
    given = parser.parse_args()
    sitting = {"code": code(), "seed": given.seed, "began": f"{datetime.datetime.now():%Y-%m-%d %H:%M}"}
    if given.add:
        if given.campaign not in ("files", *SIZES) or given.quick:
            parser.error(f"--add is for files, {', '.join(SIZES)}, without --quick")
        if given.seed in [s["seed"] for s in stored().get(given.campaign, {}).get("sittings", [])]:
            parser.error("the results have these moments already; give another --seed")
    if given.campaign == "files":
        result = campaign(QUICK if given.quick else given.mutations, given.seed, given.only, given.real)
    else:
        result = of_processes(given)
    print(json.dumps(result))
    if not given.quick and given.only is None and not given.real:
        write(given.campaign, result, sitting, given.add)
    sys.exit(bool(result["bad"]))


if __name__ == "__main__":
    main()
