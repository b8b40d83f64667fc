"""Spoiled files are read, each with a limit of time and memory, and what comes of it is counted."""

import collections
import contextlib
import io
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from caliper.data.formats import hdf5
from caliper.errors import CaliperError
from campaigns.files import Files  # type: ignore[import-not-found]

SECONDS, MEMORY = 60, 8 << 30  # of the process that reads
BAD = ("changed", "traceback", "hang", "crash", "memory")
CONTAINED = ": HDF5's library crashed or hung, in its own process"


class QuickChild:
    """What opens HDF5 files in the campaign: the same code as the real process, without Python's start."""

    server = None

    @classmethod
    @contextlib.contextmanager
    def serving(cls):
        """Has a process that forks others (`hdf5_server.py`): none carries what this one has loaded."""
        cls.server, theirs = socket.socketpair()
        script = Path(__file__).with_name("hdf5_server.py")
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
