"""Runs that are killed, stopped, starved of disk, started twice, or watched for long: campaigns of processes.

Every interrupted run is resumed until it ends, and must then be, bit for bit, the run that nobody disturbed:
checkpoint (weights, optimisers, generators, buffer), metrics but for their clocks, and evaluations.

Most processes are forks of one that has imported everything, so that a thousand take minutes; what kills or
starves them sees no difference. Some are started as a user would start them, imports included.
"""

import collections
import contextlib
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

import _digests as digests  # type: ignore[import-not-found]  # beside this file
import numpy as np
import torch
from tqdm import tqdm

from caliper.cli import main
from caliper.config.compose import compose
from caliper.envs.sim import task_scene
from caliper.errors import CaliperError
from caliper.rollout.collect import collect
from caliper.training import run as run_module

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the tests' folder
from tests.small_runs import AGENTS, SMALL

RUN = [
    *SMALL,
    "offline.bc_updates=2",
    "offline.updates=6",
    "offline.eval_every=3",
    "online.env_steps=24",
    "online.utd=0.75",
    "online.eval_every=12",
]
STATE, PIXELS = ["obs=state"], ["encoder=conv_tiny", "task.size=16"]
DEVIATIONS = [
    "agent.bc_weight=0.5",
    "agent.bc_weight_online=0.1",
    "agent.bc_fade_steps=9",
    "agent.actor_tau=0.1",
]
# Runs by name: every agent on states and on pixels, and ways of running that keep more state.
METHODS = {
    f"{agent}, {seen}": [f"agent={agent}", *keys, *words]
    for seen, words in (("state", STATE), ("pixels", PIXELS))
    for agent, keys in AGENTS.items()
} | {
    "calql, chunks": ["agent=calql", *AGENTS["calql"], *STATE, "agent.chunk=2"],
    "calql, deviations": ["agent=calql", *AGENTS["calql"], *STATE, *DEVIATIONS],
    "calql, staggered": ["agent=calql", *AGENTS["calql"], *STATE, "online.stagger=true"],
    "calql, data by size": ["agent=calql", *AGENTS["calql"], *PIXELS, "online.mixing=-1"],
}
ALWAYS, OFTEN = "log.checkpoint_minutes=0", "log.checkpoint_minutes=0.002"
PATIENCE = 300  # seconds until a process counts as hung


class Bench:
    """Starts runs in processes, and knows what each comes to when nobody disturbs it.

    Attributes:
        folder: where everything is.
        seconds: by method, until its first checkpoint, and until its end, of the undisturbed run.
    """

    def __init__(self, folder):
        self.folder = Path(folder).resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.dataset = self.folder / "lift.hdf5"
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
        task_scene("lift")  # compiled once, for all forks, as are the kernels
        torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # the first one imports for seconds
        run_module.write_report = lambda run: run / "report.html"  # figures take longer than the run
        with _quiet():
            collect(compose([*RUN, *STATE]), self.dataset)
        self.undisturbed, self.seconds = {}, {}
        self._count = self._said = 0

    def words(self, method, *more):
        """The command line of a method's run, after the verb."""
        return [*RUN, *METHODS[method], f"data.path={self.dataset}", *more]

    def new(self, name):
        """A folder that is not there yet."""
        self._count += 1
        return self.folder / f"{name}_{self._count}"

    def _log(self):
        self._said = (self._said + 1) % 10
        return self.folder / f"said_{self._said}.txt"

    def fork(self, *words):
        """Runs the command line in a fork; what it says goes to a file."""
        log = self._log()
        sys.stdout.flush()
        pid = os.fork()
        if pid:
            return Process(pid, log)
        code = 1
        try:
            # Of its own session, as the children of a terminal are: what it starts is killed with it.
            os.setsid()
            out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1)
            os.dup2(out, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
            # The bars' lock is shared by all forks: one killed while it holds it would stop the rest.
            tqdm.set_lock(threading.RLock())
            main(list(words))
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def start(self, *words):
        """Runs the command line as a user does."""
        log = self._log()
        with open(log, "w") as out:
            command = [sys.executable, "-m", "caliper", *words]
            process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
        return Process(process.pid, log)

    def whole(self, method):
        """What the method's run comes to when nobody disturbs it; made at the first call."""
        if method not in self.undisturbed:
            run, start, first = self.new("whole"), time.monotonic(), None
            process = self.fork("train", *self.words(method, ALWAYS, f"run_dir={run}"))
            while process.code() is None:
                if first is None and (run / "checkpoints" / "latest").exists():
                    first = time.monotonic() - start
                time.sleep(0.005)
            if process.code():
                raise RuntimeError(f"{method} fails on its own: {process.said()}")
            self.seconds[method] = first, time.monotonic() - start
            self.undisturbed[method] = digests.run(run)
            shutil.rmtree(run)
        return self.undisturbed[method]

    def go_on(self, run, words):
        """The words that go on with a run, or begin it where it has no checkpoint yet."""
        begun = (run / "checkpoints" / "latest").exists()
        return ("resume", str(run)) if begun else ("train", *words, f"run_dir={run}")

    def finish(self, method, run, words):
        """Goes on with a run to its end; what is wrong with it then, or None."""
        process = self.fork(*self.go_on(run, words))
        if code := process.wait():
            return f"going on failed with {code}: {process.said()[-500:]}"
        return self.difference(method, run)

    def difference(self, method, run):
        """In what a finished run differs from the undisturbed one, or None."""
        try:
            found, expected = digests.run(run), self.whole(method)
        except (CaliperError, OSError) as error:
            return f"unreadable: {error}"
        return ", ".join(name for name in expected if found[name] != expected[name]) or None


class Process:
    """A child and what it says."""

    def __init__(self, pid, log):
        self.pid, self._log, self._code = pid, log, None

    def code(self):
        """Its exit status, negative for a signal; None while it runs."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def wait(self, seconds=PATIENCE):
        """Waits for its end, or for so long; gives the exit status. What hangs is killed."""
        end = time.monotonic() + seconds
        while self.code() is None and time.monotonic() < end:
            time.sleep(0.002)
        if self.code() is None:
            self.kill()
            return "hang"
        return self._code

    def send(self, number):
        """Sends it a signal."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self):
        """Kills it, and whatever it has started, and waits until it is gone."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self.send(signal.SIGKILL)
        while self.code() is None:
            time.sleep(0.001)

    def said(self):
        """What it has printed."""
        return self._log.read_text(errors="replace")


@contextlib.contextmanager
def _quiet():
    with open(os.devnull, "w") as null, contextlib.redirect_stdout(null), contextlib.redirect_stderr(null):
        yield


class Count:
    """Events, outcomes and examples of what went wrong, printed as they come."""

    def __init__(self, name):
        self.name, self.events, self.outcomes, self.bad = name, 0, collections.Counter(), []
        self.start = time.monotonic()

    def fault(self, **what):
        """Something that must not be."""
        self.bad.append(what)
        print(json.dumps({"bad": what}), flush=True)

    def event(self, outcome):
        """One of what is counted."""
        self.events += 1
        self.outcomes[outcome] += 1
        if self.events % 50 == 0:
            seconds = time.monotonic() - self.start
            print(f"{self.events} {self.name}: {len(self.bad)} bad, {seconds:.0f} s", flush=True)

    def result(self, **more):
        """What goes into the file of results."""
        return {
            self.name: self.events,
            "bad": len(self.bad),
            **more,
            "outcomes": dict(sorted(self.outcomes.items())),
            "examples": self.bad[:20],
            "seconds": round(time.monotonic() - self.start),
        }


IN_A_RUN = 14  # kills, at most


def kills(bench, count, seed, limit=float("inf"), methods=tuple(METHODS)):
    """SIGKILL at random moments of runs of all methods, in rounds; each is resumed, and killed again.

    Half of the runs save at every update and control step, the others every 0.12 s. One moment in five lies
    before the first checkpoint of the process.
    """
    rnd, found, runs, last = random.Random(seed), Count("kills"), 0, time.monotonic() + limit
    done = collections.Counter()
    while found.events < count and time.monotonic() < last:
        for number, method in enumerate(methods):
            bench.whole(method)
            first, end = bench.seconds[method]
            run, saves = bench.new("run"), (ALWAYS, OFTEN)[(number + runs // len(methods)) % 2]
            words, runs, struck = bench.words(method, saves), runs + 1, 0
            while struck < IN_A_RUN and found.events < count and time.monotonic() < last:
                process = bench.fork(*bench.go_on(run, words))
                early, late = rnd.uniform(0, first), first + rnd.uniform(0, 0.4 * (end - first))
                if process.wait(early if rnd.random() < 0.2 else late) != "hang":
                    break
                begun = (run / "checkpoints" / "latest").exists()
                found.event("after a checkpoint" if begun else "before the first checkpoint")
                done[method], struck = done[method] + 1, struck + 1
            if wrong := bench.finish(method, run, words):
                found.fault(method=method, kills=struck, wrong=wrong)
            shutil.rmtree(run, ignore_errors=True)
            if found.events >= count or time.monotonic() > last:
                break
    return found.result(runs=runs, methods=len(done), by_method=dict(done))


IMPORTS = 6  # seconds that a process's imports take on two busy cores
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def signals(bench, count, seed, limit=float("inf"), methods=tuple(METHODS), as_user=4):
    """SIGTERM, SIGINT and SIGHUP at random moments: saved and said, then resumed.

    Every `as_user`-th run is started as a user does, so that the moment may lie in the imports.
    """
    rnd, found = random.Random(seed), Count("signals")
    for i in range(count):
        if time.monotonic() - found.start > limit:
            break
        method, number = methods[i % len(methods)], SIGNALS[i % 3]
        bench.whole(method)
        _, end = bench.seconds[method]
        run = bench.new("run")
        words, real = bench.words(method), i % as_user == 0
        command = ("train", *words, f"run_dir={run}")
        process = bench.start(*command) if real else bench.fork(*command)
        time.sleep(rnd.uniform(0, IMPORTS + end) if real else rnd.uniform(0.05, end))
        ended = process.code() is not None
        process.send(number)
        code, said = process.wait(), process.said()
        if ended or code == 0:
            found.event("had ended")
        elif code == 130 and "stopped and saved" in said:
            found.event("saved")
        elif code == 130 and "stopped at once" in said:
            found.event("nothing to save yet")
        elif code == -number and not said:
            found.event("before the first line of Python")
        else:
            found.event("wrong")
            found.fault(method=method, signal=number.name, code=code, said=said[-500:])
        if "Traceback" in said:
            found.fault(method=method, signal=number.name, said=said[-500:])
        if wrong := bench.finish(method, run, words):
            found.fault(method=method, signal=number.name, wrong=wrong)
        shutil.rmtree(run, ignore_errors=True)
    return found.result(started_as_a_user=len(range(0, found.events, as_user)))


def disk(bench, count, seed, limit=float("inf"), methods=("calql, state", "iql, state", "rlpd, pixels")):
    """A disk with room for a random part of what a run writes; then more room."""
    rnd, found = random.Random(seed), Count("full disks")
    place = bench.folder / "small"
    place.mkdir(exist_ok=True)
    for i in range(count):
        if time.monotonic() - found.start > limit:
            break
        method = methods[i % len(methods)]
        bench.whole(method)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", place], check=True)
        try:
            run, words = place / "run", bench.words(method, ALWAYS)
            most = _written(bench, method, place)
            ballast = place / "ballast"
            room = rnd.randrange(4096, most)
            _fill(ballast, place, room)
            process = bench.fork("train", *words, f"run_dir={run}")
            code, said = process.wait(), process.said()
            if code == 0:
                found.event("there was room")
            elif code == 2 and "free some space" in said and "Traceback" not in said:
                found.event("one sentence")
            else:
                found.event("wrong")
                found.fault(method=method, room=room, code=code, said=said[-700:])
            ballast.unlink()
            if wrong := bench.finish(method, run, words):
                found.fault(method=method, room=room, wrong=wrong)
        finally:
            subprocess.run(["umount", place], check=True)
    return found.result()


def _written(bench, method, place, known={}):  # noqa: B006  # kept from call to call
    """Bytes that a run takes at the end, with a checkpoint in the making."""
    if method not in known:
        run = place / "measure"
        bench.fork("train", *bench.words(method, ALWAYS), f"run_dir={run}").wait()
        newest = sorted((run / "checkpoints").glob("0*"))[-1]
        sizes = [
            sum(-(-p.stat().st_size // 4096) * 4096 for p in f.rglob("*") if p.is_file())
            for f in (run, newest)
        ]
        known[method] = sum(sizes) + 100_000
        shutil.rmtree(run)
    return known[method]


def _fill(ballast, place, room):
    """Leaves `room` bytes free."""
    with open(ballast, "wb") as file:
        left = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize - room
        os.posix_fallocate(file.fileno(), 0, max(left, 1))


def two(bench, count, seed, limit=float("inf"), method="calql, state"):
    """Two processes on one folder within a moment: one is refused in a sentence, the other is whole."""
    rnd, found = random.Random(seed), Count("pairs")
    verbs = (("train", "train"), ("resume", "resume"), ("train", "resume"))
    bench.whole(method)
    for i in range(count):
        if time.monotonic() - found.start > limit:
            break
        kind, run = verbs[i % 3], bench.new("run")
        words = bench.words(method)
        if "resume" in kind:
            process = bench.fork("train", *words, f"run_dir={run}")
            while not (run / "checkpoints" / "latest").exists():
                time.sleep(0.005)
            process.kill()
        commands = {"train": ("train", *words, f"run_dir={run}"), "resume": ("resume", str(run))}
        pair = []
        for verb in kind:
            pair.append(bench.fork(*commands[verb]))
            time.sleep(rnd.choice((0, 0, rnd.uniform(0, 1))))
        codes = sorted(str(process.wait()) for process in pair)
        begun = "train" in kind and "resume" in kind  # train onto a run that has begun
        # The second may have come when the first was done: a resume then does nothing, a train is refused.
        if codes == ["0", "2"] or (codes == ["0", "0"] and "resume" in kind and not begun):
            found.event("one at work" if codes == ["0", "2"] else "one after the other")
        else:
            found.event("wrong")
            found.fault(verbs=kind, codes=codes, said=[process.said()[-500:] for process in pair])
        if wrong := bench.difference(method, run):
            found.fault(verbs=kind, wrong=wrong)
        shutil.rmtree(run, ignore_errors=True)
    return found.result()


class Sampler(threading.Thread):
    """Notes a process's memory, open files and threads every few seconds."""

    def __init__(self, pid, every):
        super().__init__(daemon=True)
        self.pid, self.every, self.rows = pid, every, []

    def run(self):
        start, place = time.monotonic(), Path(f"/proc/{self.pid}")
        while True:
            try:
                status = (place / "status").read_text()
                held = {
                    line.split(":")[0]: line.split()[1]
                    for line in status.splitlines()
                    if len(line.split()) > 1
                }
                files = len(list((place / "fd").iterdir()))
                self.rows.append(
                    (time.monotonic() - start, int(held["VmRSS"]) / 1024, files, int(held["Threads"]))
                )
            except (OSError, KeyError):
                return
            time.sleep(self.every)


def soak(bench, minutes, every=2.0):
    """A run on pixels at full speed for so many minutes, started as a user does; its memory over time."""
    words = [
        *RUN, *METHODS["calql, pixels"], f"data.path={bench.dataset}", "task.horizon=40", "log.every=100",
        "online.env_steps=1000000000", "online.num_envs=8", "online.capacity=5000", "online.eval_every=2000",
        "evaluation.episodes=4", "evaluation.num_envs=4", "log.checkpoint_minutes=1",
    ]  # fmt: skip
    run = bench.new("soak")
    process = bench.start("train", *words, f"run_dir={run}")
    sampler = Sampler(process.pid, every)
    sampler.start()
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end and process.code() is None:
        time.sleep(1)
    early = process.code() is not None
    process.send(signal.SIGTERM)
    code = process.wait()
    rows = np.array(sampler.rows)
    later = rows[rows[:, 0] > rows[-1, 0] / 3]  # the buffer is full by then
    slope = float(np.polyfit(later[:, 0] / 60, later[:, 1], 1)[0])
    with open(run / "metrics.csv", newline="", encoding="utf-8") as file:
        *_, last = csv.DictReader(file)
    return {
        "minutes": round(float(rows[-1, 0]) / 60, 1),
        "bad": int(early or code != 130),
        "updates": int(last["updates"]),
        "env_steps": int(last["env_steps"]),
        "checkpoints": int(max(p.name for p in (run / "checkpoints").glob("0*"))),
        "mib_first_third": round(float(np.median(rows[rows[:, 0] < rows[-1, 0] / 3, 1])), 1),
        "mib_last_third": round(float(np.median(rows[rows[:, 0] > rows[-1, 0] * 2 / 3, 1])), 1),
        "mib_per_minute": round(slope, 4),
        "open_files": [int(later[:, 2].min()), int(later[:, 2].max())],
        "threads": [int(later[:, 3].min()), int(later[:, 3].max())],
        "samples": [
            [round(float(t)), round(float(m), 1)] for t, m, _, _ in rows[:: max(1, len(rows) // 120)]
        ],
    }
