"""Small runs of every kind in processes, and what each comes to when nobody disturbs it.

Most processes are forks of one that has imported everything, so that a thousand take minutes; what kills or
starves them sees no difference. Some are started as a user would start them, imports included.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

import torch
from tqdm import tqdm

from caliper.cli import main
from caliper.config.compose import compose
from caliper.envs.sim import task_scene
from caliper.errors import CaliperError
from caliper.rollout.collect import collect
from caliper.training import run as run_module
from campaigns import digests  # type: ignore[import-not-found]
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
PATIENCE = 300  # CPU seconds, or seconds without any, until a process counts as hung


def forked(work, out, err):
    """Does something in a fork, which says what it says to two descriptors; gives the fork's id.

    Args:
        work: called without arguments; the fork ends with it, by status 1 if it raises.
        out, err: descriptors, for standard output and standard error.
    """
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        # Of its own session, as the children of a terminal are: what it starts is killed with it.
        os.setsid()
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        # The bars' lock is shared by all forks: one killed while it holds it would stop the rest.
        tqdm.set_lock(threading.RLock())
        work()
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
        with open(log, "w") as out:
            return Process(forked(lambda: main(list(words)), out.fileno(), out.fileno()), log)

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

    def wait(self, seconds=None):
        """Waits for its end, or for so many seconds; gives the exit status.

        What hangs is killed: it turns round, or stands still. On a machine that does much else a process that
        does neither may take an hour for a minute's work.
        """
        begun = moved = time.monotonic()
        used = 0.0
        while self.code() is None and (seconds is None or time.monotonic() < begun + seconds):
            time.sleep(0.002)
            if time.monotonic() > moved + 1 and (now := self._cpu()) > used:
                used, moved = now, time.monotonic()
            if used > PATIENCE or time.monotonic() > moved + PATIENCE:
                break
        if self.code() is None:
            self.kill()
            return "hang"
        return self._code

    def _cpu(self):
        """Seconds of CPU that it has taken."""
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2].split()
        except OSError:  # it has ended
            return 0.0
        return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")

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
