"""A sweep on Ray whose workers are killed: each run ends once, with the numbers of one that nobody disturbed.

`caliper sweep launcher=ray` makes its cluster on this machine and sends it 40 short runs of Cal-QL on states,
six at a time. Every 20 seconds one of the workers that see a run through, whichever it is, gets SIGKILL. And:

    lost        runs that have not come to their end, and folders that are missing
    twice       runs whose end is told more than once, or of a folder that the sweep was not to make
    different   of the runs begun anew most often: those whose checkpoint, metrics or evaluations are not,
                bit for bit, those of the same command line given alone and left in peace

    python benchmarks/launchers.py            # writes benchmarks/results/launchers.json
    python benchmarks/launchers.py --quick    # three runs and a kill or two; writes nothing
    python benchmarks/launchers.py --keep F   # works in the folder F; given again, goes on where it was ended
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

from _common import parser, report  # type: ignore[import-not-found]  # beside this file
from campaigns import digests  # type: ignore[import-not-found]
from campaigns.processes import METHODS, RUN, Bench  # type: ignore[import-not-found]

from caliper.launching.job import finished

METHOD = "calql, state"
LONGER = ["online.env_steps=200", "online.eval_every=40"]
AT_ONCE, EVERY, COMPARED = 6, 20.0, 5
# As many CPUs as runs at once, whatever the machine has. Ray's workers are niced by 15 otherwise: beside
# other programs they would hardly move.
OF_RAY = {"RAY_OVERRIDE_RESOURCES": f'{{"CPU": {AT_ONCE}}}', "RAY_worker_niceness": "0"}


def processes():
    """Of every process, by its number: its parent's and its command line."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            stat = (place / "stat").read_text().rpartition(") ")[2].split()
            found[int(place.name)] = int(stat[1]), (place / "cmdline").read_bytes()
    return found


def workers(driver):
    """Workers of the driver's own cluster that have a run under way: process numbers, and names of runs."""
    all_of_them = processes()
    parents = {parent for parent, _ in all_of_them.values()}

    def ours(pid):
        while pid in all_of_them:
            if pid == driver:
                return True
            pid = all_of_them[pid][0]
        return False

    return {
        pid: line[len(b"ray::") :].strip(b"\0 ").decode()
        for pid, (_, line) in sorted(all_of_them.items())
        if line.startswith(b"ray::seed=") and pid in parents and ours(pid)
    }


def disturbed(command, folder, seed, minutes):
    """Runs the sweep to its end and kills workers meanwhile; its status, seconds, and the runs struck.

    Of each kill a line "SECONDS s: RUN, N ended" is added to kills.txt beside the sweep's folder. Those of an
    earlier sitting, which was ended, stand there already: the clock goes on from its last kill.
    """
    record, now = folder.with_name("kills.txt"), time.monotonic
    before = record.read_text().splitlines() if record.exists() else []
    choose, sitting = random.Random(f"{seed} {len(before)}"), now()
    begun = sitting - (int(before[-1].split()[0]) if before else 0)
    with open(folder.with_suffix(".txt"), "a") as said, open(record, "a") as kills:
        driver = subprocess.Popen(command, stdout=said, stderr=said, env=os.environ | OF_RAY)
        try:
            due = None
            while driver.poll() is None:
                if now() > sitting + 60 * minutes:
                    raise RuntimeError(f"no end after {minutes} minutes; see {said.name}")
                if (there := workers(driver.pid)) and due is None:
                    due = now() + EVERY
                if there and now() >= due:
                    pid = choose.choice(list(there))
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                        ended = sum(map(finished, folder.glob("seed=*/")))
                        line = f"{now() - begun:.0f} s: {there[pid]}, {ended} ended"
                        print(line, flush=True)
                        print(line, file=kills, flush=True)
                    due = max(due + EVERY, now())
                time.sleep(0.5)
        finally:
            if driver.poll() is None:
                driver.send_signal(signal.SIGINT)
                driver.wait()
    struck = [line.split()[2].rstrip(",") for line in record.read_text().splitlines()]
    return driver.returncode, now() - begun, struck


def told(log):
    """How often a run was begun, saved because its worker had died, and told its end."""
    lines = log.read_text(errors="replace").splitlines()
    return (
        sum(line.startswith("$ ") for line in lines),
        sum("stopped and saved" in line for line in lines),
        sum(line.startswith("report: ") for line in lines),
    )


def unbroken(bench, words, seeds):
    """The digests of runs left in peace; and the seconds that one takes as a user starts it."""
    found, seconds = {}, None
    for seed in seeds:
        run, begun = bench.new("whole"), time.monotonic()
        shutil.rmtree(run, ignore_errors=True)  # of an earlier sitting
        begin = bench.start if seconds is None else bench.fork
        process = begin("train", *words, f"seed={seed}", f"run_dir={run}")
        if process.wait():
            raise RuntimeError(f"seed {seed} fails on its own: {process.said()}")
        seconds = seconds or time.monotonic() - begun
        found[seed] = digests.run(run)
    return found, seconds


def main():
    """The command line."""
    ours = parser(__doc__.splitlines()[0])
    ours.add_argument("--runs", type=int, default=40)
    ours.add_argument("--seed", type=int, default=7, help="of the choice of workers")
    ours.add_argument("--minutes", type=float, default=60, help="that the sweep may take")
    ours.add_argument("--keep", help="work in this folder and leave it")
    given = ours.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))  # the sweep is to end with it
    count = 3 if given.quick else given.runs
    place = Path(given.keep or tempfile.mkdtemp(prefix="launchers-"))
    try:
        bench = Bench(place)
        words = [*RUN, *METHODS[METHOD], *LONGER, f"data.path={bench.dataset}"]
        folder = bench.folder / "sweep"
        keys = ["launcher=ray", f"sweep.dir={folder}", f"sweep.jobs={AT_ONCE}"]
        command = [sys.executable, "-m", "caliper", "sweep", *words, f"seed=range(0,{count})", *keys]
        load = os.getloadavg()[0]
        status, seconds, struck = disturbed(command, folder, given.seed, given.minutes)
        load = [round(x, 1) for x in (load, os.getloadavg()[0])]
        runs = [folder / f"seed={seed}" for seed in range(count)]
        begun, saved, ends = zip(*(told(run.with_name(f"{run.name}.log")) for run in runs), strict=True)
        strange = {path for path in folder.iterdir() if (path / "config.yaml").exists()} - set(runs)
        compared = sorted(range(count), key=lambda seed: -begun[seed])[: 1 if given.quick else COMPARED]
        whole, alone = unbroken(bench, words, compared)
        different = [seed for seed in compared if digests.run(runs[seed]) != whole[seed]]
        result = {
            "status_of_the_sweep": status,
            "lost": [run.name for run in runs if not finished(run)],
            "twice": [run.name for run, n in zip(runs, ends, strict=True) if n > 1]
            + sorted(path.name for path in strange),
            "different": different,
            "compared": {f"seed={seed}": {"begun": begun[seed]} for seed in compared},
            "kills": len(struck),
            "runs_struck": len(set(struck)),
            "starts_of_runs": sum(begun),
            "saved_when_struck": sum(saved),
            "seconds_between_kills": EVERY,
            "runs_at_once": AT_ONCE,
            "minutes": round(seconds / 60, 1),
            "seconds_of_one_run_alone": round(alone, 1),
            "load_before_and_after": load,
        }
        bad = bool(status or result["lost"] or result["twice"] or different)
        good = count - len(result["lost"])
        unit = "runs of a sweep on Ray that ended, of those begun"
        packages = ("ray", "torch", "mujoco")
        report("launchers", good, count, good / count, unit, packages, given.quick, bad=bad, **result)
    finally:
        if not given.keep:
            shutil.rmtree(place, ignore_errors=True)
    sys.exit(bad)


if __name__ == "__main__":
    main()
