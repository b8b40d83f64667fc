"""What Caliper does with damaged and hostile files: never a traceback, a hang, a crash or a wrong number.

Each mutation spoils one file of a small dataset, run or sweep (see `_mutations.py`), and lets it be read in a
process of its own with 8 GiB and 60 s. What comes of it is counted:

    refused     one sentence of ours
    unchanged   accepted, and everything read is as it was
    told        accepted, and it is said that something is missing, changed or not vouched for
    foreign     accepted: the file, as a stranger's, carries no checksum, and what it says can be used
    and the bad ones: changed (accepted with other values, nothing said), traceback, hang, crash, memory

    python benchmarks/faults.py files                     # 10,000 mutations, writes results/faults.json
    python benchmarks/faults.py files --quick             # 400, writes nothing
    python benchmarks/faults.py files --only 1234         # one of them again, with its traceback

And what a run comes to that is killed, stopped, starved of disk, started twice (see `_processes.py`):

    python benchmarks/faults.py kills                     # 1,000 times -9, over 24 kinds of runs
    python benchmarks/faults.py signals                   # 100 of SIGTERM, SIGINT and SIGHUP
    python benchmarks/faults.py disk                      # full at 50 moments; needs root to mount it
    python benchmarks/faults.py two                       # 30 pairs of processes on one folder
    python benchmarks/faults.py chaos --tool PATH         # ckpt-chaos, of PyPI, at every file boundary
    python benchmarks/faults.py soak --minutes 60         # memory, open files and threads over time
"""

import argparse
import collections
import contextlib
import datetime
import io
import json
import os
import platform
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from importlib.metadata import version
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import _digests as digests  # type: ignore[import-not-found]  # beside this file
import _mutations as mutations  # type: ignore[import-not-found]
import _processes as processes  # type: ignore[import-not-found]
import numpy as np
from _chaos import ALL, chaos  # type: ignore[import-not-found]

from caliper.analysis.comparison import write_comparison
from caliper.analysis.run_data import read_run
from caliper.analysis.run_report import write_report
from caliper.analysis.run_table import runs_of
from caliper.config.build import installed
from caliper.config.compose import compose, load
from caliper.config.validate import check
from caliper.data import hdf5
from caliper.data.checksum import digest
from caliper.data.minari import read_minari
from caliper.data.robomimic import read_dataset
from caliper.errors import CaliperError
from caliper.rollout.collect import collect
from caliper.tools.inspect_dataset import describe
from caliper.training.checkpoint import load_checkpoint
from caliper.training.logger import Logger
from caliper.training.run import train
from caliper.utils.manifest import latest, saved_metrics, write_manifest

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the tests' folder
from tests.small_runs import AGENTS, SMALL

MUTATIONS, QUICK = 10_000, 400
SECONDS, MEMORY = 60, 8 << 30  # of the process that reads
BAD = ("changed", "traceback", "hang", "crash", "memory")
CONTAINED = ": HDF5's library crashed or hung, in its own process"
RESULTS = Path(__file__).resolve().parent / "results"
WORDS = [
    *SMALL,
    *AGENTS["calql"],
    "obs=state",
    "offline.bc_updates=2",
    "offline.updates=4",
    "offline.eval_every=2",
    "online.env_steps=12",
    "online.eval_every=6",
]


class QuickChild:
    """What opens HDF5 files in the campaign: the same code as the real process, without Python's start."""

    server = None

    @classmethod
    @contextlib.contextmanager
    def serving(cls):
        """Has a process that forks others (`_hdf5_server.py`): none carries what this one has loaded."""
        cls.server, theirs = socket.socketpair()
        script = Path(__file__).with_name("_hdf5_server.py")
        command = [sys.executable, str(script), str(Path(hdf5.__file__).parent)]
        process = subprocess.Popen(command, stdin=theirs, env=os.environ | {"HDF5_PLUGIN_PRELOAD": "::"})
        theirs.close()
        before, hdf5.Child = hdf5.Child, cls
        try:
            yield
        finally:
            hdf5.Child = before
            cls.server.close()
            process.wait()

    def __init__(self, script, path):
        ours, theirs = os.pipe(), os.pipe()  # asked, told: each (to read, to write)
        socket.send_fds(self.server, [str(path).encode()], [ours[0], theirs[1]])
        os.close(ours[0])
        os.close(theirs[1])
        self._pid = int(self.server.recv(100))
        self.asked, self.told = os.fdopen(ours[1], "wb"), os.fdopen(theirs[0], "rb")

    def end(self):
        """As the real one."""
        with contextlib.suppress(OSError):
            os.kill(self._pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            self.asked.close()
        self.told.close()


class Files:
    """A dataset, a Minari dataset, a run and a sweep to be spoiled, and what each says when it is whole."""

    def __init__(self, folder):
        self.folder = folder
        whole = folder / "whole"
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            config = compose([*WORDS, f"data.path={whole / 'lift.hdf5'}", f"run_dir={whole / 'run'}"])
            collect(config, whole / "lift.hdf5")
            train(config)
        shutil.rmtree(whole / "run" / "plots")  # what nothing reads
        (whole / "run" / "report.html").unlink()
        self.run, self.dataset, self.minari = whole / "run", whole / "lift.hdf5", whole / "minari"
        self._unsealed(whole)
        _write_minari(self.minari)
        sweep = whole / "sweep"
        for seed in range(2):
            shutil.copytree(self.run, sweep / f"seed={seed}")
        write_comparison(sweep, [("all", sweep / f"seed={seed}") for seed in range(2)])
        evaluation = sorted(self.run.glob("evaluations/*/evaluation.json"))[-1].parent.relative_to(self.run)
        checkpoint = latest(self.run / "checkpoints").relative_to(self.run)
        stranger = (self.run.parent / "stranger").relative_to(whole)
        # What is spoiled, below `whole`; by which kinds of mutation; how it is read; its share of all.
        self.targets = {
            "dataset": ("lift.hdf5", mutations.BYTES, self.read_sealed, 20),
            "dataset, structure": ("lift.hdf5", mutations.structure, self.read_sealed, 10),
            "dataset without checksums": ("foreign.hdf5", mutations.BYTES, self.read_foreign, 15),
            "dataset without checksums, structure": (
                "foreign.hdf5", mutations.structure, self.read_foreign, 15
            ),
            "minari": ("minari/data/main_data.hdf5", mutations.BYTES, self.read_minari, 4),
            "minari, structure": ("minari/data/main_data.hdf5", mutations.structure, self.read_minari, 4),
            "minari metadata.json": ("minari/metadata.json", mutations.TEXT, self.read_minari, 2),
            "config.yaml": ("run/config.yaml", mutations.TEXT, self.read_config, 4),
            "config.yaml without checksum": (
                "stranger/config.yaml",
                mutations.TEXT,
                self.read_their_config,
                8,
            ),
            "weights.safetensors": (f"run/{checkpoint}/weights.safetensors", mutations.BYTES, self.load, 4),
            "state.pt": (f"run/{checkpoint}/state.pt", mutations.BYTES, self.load, 4),
            "manifest.json": (f"run/{checkpoint}/manifest.json", mutations.TEXT, self.load, 2),
            "latest": ("run/checkpoints/latest", mutations.TEXT, self.load, 2),
            "weights.safetensors of a stranger": (
                f"{stranger}/{checkpoint}/weights.safetensors", mutations.BYTES, self.load_theirs, 3
            ),
            "state.pt of a stranger": (
                f"{stranger}/{checkpoint}/state.pt", mutations.BYTES, self.load_theirs, 3
            ),
            "metrics.csv": ("run/metrics.csv", mutations.TEXT, self.read_metrics, 5),
            "metrics.csv at a resume": ("run/metrics.csv", mutations.TEXT, self.restore_metrics, 3),
            "evaluation.json": (f"run/{evaluation}/evaluation.json", mutations.TEXT, self.read_run, 4),
            "calibration.npz": (f"run/{evaluation}/calibration.npz", mutations.BYTES, self.read_run, 4),
            "git.json": ("run/git.json", mutations.TEXT, self.read_run, 1),
            "report of a stranger, metrics.csv": ("stranger/metrics.csv", mutations.TEXT, self.report, 0.15),
            "report of a stranger, evaluation.json": (
                f"stranger/{evaluation}/evaluation.json", mutations.TEXT, self.report, 0.15
            ),
            "report of a stranger, calibration.npz": (
                f"stranger/{evaluation}/calibration.npz", mutations.BYTES, self.report, 0.15
            ),
            "report of a stranger, config.yaml": ("stranger/config.yaml", mutations.TEXT, self.report, 0.15),
            "runs.csv of a sweep": ("sweep/runs.csv", mutations.TEXT, self.read_sweep, 3),
            "report of a sweep": ("sweep/runs.csv", mutations.TEXT, self.report_sweep, 0.2),
        }  # fmt: skip
        self.whole = whole
        self.known = self._known()

    def _unsealed(self, whole):
        """The same as if it came from elsewhere: without any checksum, the lists of files made anew."""
        shutil.copy(self.dataset, whole / "foreign.hdf5")
        mutations.unseal(whole / "foreign.hdf5")
        shutil.copytree(self.run, whole / "stranger")
        for path in (whole / "stranger").rglob("*.json"):
            if path.name != "manifest.json":
                content = json.loads(path.read_text())
                content.pop("sha256", None)
                path.write_text(json.dumps(content))
        config = whole / "stranger" / "config.yaml"
        config.write_text(config.read_text().split("\n", 1)[1])

    def _known(self):
        """What the whole files say."""
        weights, state = load_checkpoint(self.run)
        older = sorted((self.run / "checkpoints").glob("0*"))[0]
        return {
            "content": read_dataset(self.dataset).content,
            "config": load(self.run / "config.yaml", []),
            "checkpoint": digests.tensors(weights, state),
            "older": older.name,
            "run": _run_digest(read_run(self.run)),
            "sweep": [name for name, _ in runs_of(self.whole / "sweep")],
        }

    def read_sealed(self, path):
        """A dataset file of Caliper's."""
        dataset = read_dataset(path, rewards=None)
        if dataset.content == self.known["content"]:
            return "unchanged"
        return "changed" if dataset.sealed else "told"  # `inspect` and `train` say that there is no checksum

    def read_foreign(self, path):
        """A dataset file of another tool, as `inspect` and a training look at it."""
        text = describe(path, installed)
        assert all(line.isprintable() for line in text.splitlines()), "something unprintable was printed"
        assert sum(line.startswith("  fits ") for line in text.splitlines()) == 1, "a line was forged"
        dataset = read_dataset(path)
        for e in dataset.episodes:
            assert np.isfinite(e.states).all() and np.isin(e.rewards, (0, 1)).all()
        return "foreign"

    def read_minari(self, path):
        """A Minari dataset's folder."""
        folder = path.parent if path.name == "metadata.json" else path.parent.parent
        found = read_minari(folder, dense=True)
        assert all(np.isfinite(e.obs).all() and np.isfinite(e.rewards).all() for e in found.episodes)
        return "foreign"

    def read_config(self, path):
        """A run's own configuration."""
        return "unchanged" if load(path, []) == self.known["config"] else "changed"

    def read_their_config(self, path):
        """A configuration that was edited, or comes from elsewhere, as `evaluate` takes it."""
        config = load(path, [])
        assert os.environ["HOME"] == "/" or os.environ["HOME"] not in repr(config), "a secret was read"
        check(config)
        return "foreign"

    def load(self, path):
        """The newest checkpoint of a run."""
        run = self.folder / "spoiled" / "run"
        with contextlib.redirect_stderr(io.StringIO()) as said:
            found = digests.tensors(*load_checkpoint(run))
        if found == self.known["checkpoint"]:
            return "unchanged"
        return "told" if f"names {self.known['older']}" in said.getvalue() else "changed"

    def load_theirs(self, path):
        """A checkpoint whose list of files agrees with whatever is in it."""
        (path.parent / "manifest.json").unlink()
        write_manifest(path.parent, None)
        load_checkpoint(path.parents[2])
        return "foreign"

    def read_metrics(self, path):
        """A run's curves, as the report reads them; what the newest checkpoint vouches for."""
        return self.read_run(path)

    def read_run(self, path):
        """A run's folder, as the report reads it."""
        run = read_run(self.folder / "spoiled" / "run")
        if _run_digest(run) == self.known["run"]:
            return "unchanged"
        return "told" if run.problems else "changed"

    def restore_metrics(self, path):
        """metrics.csv, as a resumed run goes on with it."""
        rows, sha256 = saved_metrics(path.parent)
        with Logger(path.parent) as log:
            lost = log.truncate(rows, sha256)
            log.log("online", 99, 99, {"new": 1.0})
        read_run(path.parent)
        return "unchanged" if lost is None else "told"

    def report(self, path):
        """The page about a stranger's run."""
        page = write_report(self.folder / "spoiled" / "stranger").read_text(encoding="utf-8")
        assert "\x1b" not in page and "\u202e" not in page, "something unprintable was written"
        return "told" if "could not be read" in page else "foreign"

    def read_sweep(self, path):
        """Which runs a sweep has."""
        return "unchanged" if [name for name, _ in runs_of(path.parent)] == self.known["sweep"] else "changed"

    def report_sweep(self, path):
        """The page about a sweep."""
        write_comparison(path.parent, runs_of(path.parent))
        return self.read_sweep(path)

    def spoil(self, target, seed):
        """Mutates a copy of the target's file; returns it and the function that reads it."""
        name, kinds, read, _ = self.targets[target]
        spoiled, top = self.folder / "spoiled", name.split("/")[0]
        shutil.rmtree(spoiled, ignore_errors=True)
        spoiled.mkdir()
        copy = shutil.copytree if (self.whole / top).is_dir() else shutil.copy
        copy(self.whole / top, spoiled / top)
        path, rnd = spoiled / name, random.Random(seed)
        if kinds is mutations.structure:
            for _ in range(rnd.choice((1, 1, 1, 2))):
                with contextlib.suppress(
                    KeyError, ValueError, TypeError, OSError, RuntimeError, OverflowError
                ):
                    mutations.structure(path, rnd)  # some cannot follow another
        else:
            data = bytearray(path.read_bytes())
            for _ in range(rnd.choice((1, 1, 1, 2, 3))):
                if data:
                    rnd.choice(kinds)(data, rnd)
            path.write_bytes(data)
        return path, read


def _write_minari(folder):
    import h5py

    (folder / "data").mkdir(parents=True)
    with h5py.File(folder / "data" / "main_data.hdf5", "w") as file:
        for i in range(3):
            group = file.create_group(f"episode_{i}")
            group["observations/a"], group["observations/b"] = np.ones((6, 3)), np.ones((6, 2))
            group["actions"], group["rewards"] = np.zeros((5, 2), np.float32), np.arange(5) / 5
            group["terminations"], group["truncations"] = np.zeros(5, bool), np.arange(5) == 4
            group["infos/success"] = np.arange(5) == 4
    spec = json.dumps({"id": "FrankaKitchen-v1"})
    meta = {"total_episodes": 3, "data_format": "hdf5", "env_spec": spec}
    (folder / "metadata.json").write_text(json.dumps(meta))


def _run_digest(run):
    """Everything that a report can show of a run, as one checksum."""
    facts = {"config": repr(run.config), "git": repr(run.git)}
    arrays = {f"metrics.{k}": v for k, v in run.metrics.items() if k != "phase"}
    facts["phase"] = list(map(str, run.metrics.get("phase", ())))
    for i, e in enumerate(run.evaluations):
        facts[f"{i}"] = repr((e.phase, e.env_steps, e.updates, e.success_once, e.interval, e.seeds))
        arrays |= {f"{i}.{k}": v for k, v in e.calibration.items()}
        arrays |= {f"{i}.features": e.features} if e.features is not None else {}
    return digest(facts, arrays)


def outcomes(files, chosen, seed, show=False):
    """What reading each spoiled file comes to, (number, outcome), in processes replaced as they fail.

    Args:
        files: to spoil.
        chosen: target of each mutation by its number.
        seed: of the mutations.
        show: print tracebacks.
    """
    left = list(chosen)
    while left:
        batch = left[:200]
        told, tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:  # nothing of what follows the fork's parent may run here too
                os.close(told)
                _work(files, {i: chosen[i] for i in batch}, seed, os.fdopen(tell, "w"), show)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        os.close(tell)
        with os.fdopen(told) as pipe:
            for line in pipe:
                i, said = json.loads(line)
                left.remove(i)
                yield i, said
        _, status = os.waitpid(pid, 0)
        if left and left[0] in batch:  # it ended within this one
            timeout = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM
            yield left.pop(0), "hang" if timeout else f"crash: {status}"


def _work(files, batch, seed, tell, show):
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for i, target in batch.items():
        path, read = files.spoil(target, f"{seed}.{i}")
        signal.alarm(SECONDS)
        said = _outcome(read, path, show)
        signal.alarm(0)
        print(json.dumps([i, said]), file=tell, flush=True)


def _outcome(read, path, show):
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return read(path)
    except CaliperError as error:
        if not str(error).isprintable():
            return f"traceback: unprintable {error!r}"
        return f"refused{CONTAINED}" if "the HDF5 library" in str(error) else "refused"
    except MemoryError:
        return "memory"
    except BaseException as error:
        if show:
            traceback.print_exc()
        return f"traceback: {type(error).__name__}: {error}"[:500]


def campaign(count, seed, only=None, real=False):
    """Spoils `count` files and counts what comes of it."""
    quick = contextlib.nullcontext() if real else QuickChild.serving()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder, quick:
        files = Files(Path(folder).resolve())
        names = list(files.targets)
        shares = [share for *_, share in files.targets.values()]
        chosen = random.Random(seed).choices(names, shares, k=count)
        chosen[: len(names)] = names[:count]  # each at least once
        numbered = {i: name for i, name in enumerate(chosen) if only in (None, i)}
        counts = {name: collections.Counter() for name in names}
        bad, contained, start = [], 0, time.monotonic()
        for i, said in outcomes(files, numbered, seed, only is not None):
            contained += said.endswith(CONTAINED)
            kind = said.split(":")[0]
            counts[chosen[i]][kind] += 1
            if kind in BAD:
                bad.append({"number": i, "file": chosen[i], "outcome": said})
                print(json.dumps(bad[-1]), flush=True)
            if only is not None:
                print(chosen[i], said)
            elif (i + 1) % 500 == 0:
                print(f"{i + 1} of {count}: {len(bad)} bad, {time.monotonic() - start:.0f} s", flush=True)
    total = sum(counts.values(), collections.Counter())
    return {
        "mutations": sum(total.values()),
        "bad": len(bad),
        "outcomes": dict(sorted(total.items())),
        "crashes_and_hangs_of_hdf5_contained": contained,
        "by_file": {name: dict(sorted(count.items())) for name, count in counts.items()},
        "examples": bad[:20],
        "seconds": round(time.monotonic() - start),
    }


def write(part, result):
    """Puts one campaign's result beside those of the others."""
    path = RESULTS / "faults.json"
    held = json.loads(path.read_text()) if path.exists() else {"name": "faults"}
    packages = ("h5py", "numpy", "torch", "safetensors", "omegaconf")
    machine = {"versions": {"python": platform.python_version()} | {p: version(p) for p in packages}}
    held[part] = result | machine | {"date": datetime.date.today().isoformat()}
    parts = [value for value in held.values() if isinstance(value, dict)]
    held["bad"] = sum(value["bad"] for value in parts)
    held |= {key: held[key_of][key] for key, key_of in TOTALS.items() if key_of in held}
    path.write_text(json.dumps(held, indent=1) + "\n")


TOTALS = {"mutations": "files"}  # what stands beside the sum of all that went bad
SIZES = {"kills": (1000, 24), "signals": (100, 8), "disk": (50, 4), "two": (30, 3)}  # all of it, and --quick


def of_processes(given):
    """One of the campaigns of `_processes.py`."""
    place = given.keep or tempfile.mkdtemp(prefix="faults-")
    try:
        bench = processes.Bench(place)
        if given.campaign == "soak":
            return processes.soak(bench, 0.5 if given.quick else given.minutes)
        if given.campaign == "chaos":
            return chaos(bench, given.tool, 6 if given.quick else given.points)
        count = given.count or SIZES[given.campaign][given.quick]
        return getattr(processes, given.campaign)(bench, count, given.seed, 60 * given.minutes)
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
    parser.add_argument("--keep", help="work in this folder and leave it")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--only", type=int, help="number of one mutation, made and read again")
    parser.add_argument("--real", action="store_true", help="open HDF5 files as the program does: slower")
    given = parser.parse_args()
    if given.campaign == "files":
        result = campaign(QUICK if given.quick else given.mutations, given.seed, given.only, given.real)
    else:
        result = of_processes(given)
    print(json.dumps(result))
    if not given.quick and given.only is None and not given.real:
        write(given.campaign, result)
    sys.exit(bool(result["bad"]))


if __name__ == "__main__":
    main()
