"""Runs that are killed, stopped, starved of disk or started twice.

Every interrupted run is resumed until it ends, and must then be, bit for bit, the run that nobody disturbed:
checkpoint (weights, optimisers, generators, buffer), metrics but for their clocks, and evaluations.
"""

import collections
import json
import os
import random
import shutil
import signal
import subprocess
import time

from campaigns.processes import ALWAYS, METHODS, OFTEN  # type: ignore[import-not-found]

COUNTED = {"kills": "kills", "signals": "signals", "disk": "full disks", "two": "pairs"}  # in the results


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
    done, methods = collections.Counter(), list(methods)
    rnd.shuffle(methods)  # one that ends early leaves out others than the one before it
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
    rnd, found, methods = random.Random(seed), Count("signals"), list(methods)
    rnd.shuffle(methods)
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
