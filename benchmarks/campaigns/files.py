"""Small files of every kind that Caliper reads, whole; spoiled copies of them; and what reading one comes to.

What a reader finds is `unchanged`, `told` (it is said that something is missing, changed or not vouched for),
`foreign` (as a stranger's, the file carries no checksum, and what it says can be used) or, which must not be,
`changed`; what is refused raises.
"""

import contextlib
import io
import json
import os
import random
import shutil

import numpy as np

from caliper.analysis.comparison import write_comparison
from caliper.analysis.run_data import read_run
from caliper.analysis.run_report import write_report
from caliper.analysis.run_table import runs_of
from caliper.config.build import installed
from caliper.config.compose import compose, load
from caliper.config.validate import check
from caliper.data.formats.checksum import digest
from caliper.data.formats.minari import read_minari
from caliper.data.formats.robomimic import read_dataset
from caliper.rollout.collect import collect
from caliper.tools.inspect_dataset import describe
from caliper.training.checkpoint import load_checkpoint
from caliper.training.logger import Logger
from caliper.training.run import train
from caliper.utils.foreign import is_sealed
from caliper.utils.manifest import latest, saved_metrics, write_manifest
from campaigns import digests, mutations  # type: ignore[import-not-found]
from tests.small_runs import AGENTS, SMALL

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
        if load(path, []) == self.known["config"]:
            return "unchanged"
        return "changed" if is_sealed(path) else "told"  # by whoever takes up the run

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
                    KeyError, ValueError, TypeError, OSError, RuntimeError, OverflowError, MemoryError
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
