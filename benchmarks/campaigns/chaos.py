"""`ckpt-chaos`, somebody else's program, on Caliper: it kills a training at every boundary of its files.

It runs the training once, notes every file that is opened for writing, made, renamed or removed, and runs
it again for each of these: killed before it ("before"), after half of what was to be written ("torn"), or
told to stop by SIGTERM ("term"). Then the run is resumed, and its result compared with that of the
undisturbed run.

Its commands are a small client of the campaign, which forks for each, arms the fork as `ckpt-chaos` arms a
program at its start, and has imported everything before.
"""

import collections
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

from caliper.cli import main
from caliper.utils.metrics import lost_rows, read_metrics
from campaigns import digests  # type: ignore[import-not-found]
from campaigns.processes import PATIENCE, forked  # type: ignore[import-not-found]

MODES = ("before", "torn", "term")
ALL = 10**6  # points, more than there are
GOOD = ("equal", "told", "had ended")
CLIENT = """
import json, os, socket, sys
door = socket.socket(socket.AF_UNIX)
door.connect(sys.argv[1])
env = {k: v for k, v in os.environ.items() if k.startswith("CKPT_CHAOS") or k == "PYTHONPATH"}
socket.send_fds(door, [json.dumps({"do": sys.argv[2], "out": sys.argv[3], "env": env}).encode()], [1, 2])
sys.exit(int(door.recv(100) or 1))
"""


def chaos(bench, tool, points=ALL, methods=("calql, state", "rlpd, pixels")):
    """Every file boundary of a run of each method, in three ways.

    Args:
        bench: the runs.
        tool: the program's path (`pip install ckpt-chaos`, in an environment of its own).
        points: at most so many boundaries a method.
    """
    start, bad, found = time.monotonic(), [], {}
    for method in methods:
        place = bench.new("chaos")
        place.mkdir()
        events, rows = _campaign(bench, tool, points, method, place)
        outcomes = {mode: collections.Counter() for mode in (*MODES, "control")}
        for row in rows:
            outcomes[row["mode"]][row["outcome"]] += 1
            if row["outcome"] not in GOOD:
                bad.append({"method": method, **row})
                print(json.dumps({"bad": bad[-1]}), flush=True)
        counted = {mode: dict(sorted(count.items())) for mode, count in outcomes.items()}
        found[method] = {"boundaries": events, "points": len(rows) - 1, "outcomes": counted}
        print(json.dumps({method: found[method]}), flush=True)
    return {
        "points": sum(entry["points"] for entry in found.values()),
        "bad": len(bad),
        "by_method": found,
        "examples": bad[:20],
        "seconds": round(time.monotonic() - start),
    }


def _campaign(bench, tool, points, method, place):
    """The number of a run's boundaries, and what came of each point."""
    words = bench.words(method, "offline.updates=3", "online.env_steps=12")
    client = [sys.executable, "-S", str(place / "client.py"), str(place / "door")]
    (place / "client.py").write_text(CLIENT)
    work, junit = place / "work", place / "points.xml"
    command = [
        tool,
        "run",
        "--timeout",
        str(PATIENCE),
        "--modes",
        ",".join(MODES),
        "--max-points",
        str(points),
    ]
    command += ["--work", str(work), "--junit", str(junit)]
    command += ["--resume-cmd", " ".join([*client, "again", "{out}"])]
    command += ["--result-cmd", " ".join([*client, "result", "{out}"]), "--", *client, "train", "{out}"]
    with socket.socket(socket.AF_UNIX) as door, open(place / "said.txt", "w") as said:
        door.bind(str(place / "door"))
        door.listen()
        door.settimeout(0.05)
        process = subprocess.Popen(command, stdout=said, stderr=said, cwd=place)
        while process.poll() is None:
            with contextlib.suppress(TimeoutError):
                _serve(door.accept()[0], bench, words)
    if not junit.exists():
        raise RuntimeError(f"{tool} failed: {(place / 'said.txt').read_text()[-2000:]}")
    expected = digests.run(work / "reference" / "out" / "run")
    failures = {case.get("name"): case.find("failure") for case in ElementTree.parse(junit).getroot()}
    events = (work / "reference" / "events.log.rank0").read_text().splitlines()
    points = sorted(work.glob("pt_*/result.json"))
    return len(events), [_judged(path, failures, expected) for path in points]


def _serve(client, bench, words):
    """Does in a fork what one command of `ckpt-chaos` asks for, and tells how it ended."""
    with client:
        message, given, *_ = socket.recv_fds(client, 1 << 16, 2)
        asked = json.loads(message)
        run = Path(asked["out"]) / "run"
        pid = forked(lambda: _work(asked, run, bench, words), *given)
        for descriptor in given:
            os.close(descriptor)
        end = time.monotonic() + PATIENCE
        while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
            if time.monotonic() > end:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.002)
        code = os.waitstatus_to_exitcode(ended[1])
        with contextlib.suppress(OSError):  # given up by the other side
            client.send(str(code if code >= 0 else 128 - code).encode())


def _work(asked, run, bench, words):
    """In the fork: one command, as of a process that `ckpt-chaos` has started."""
    if asked["do"] == "result":
        print(json.dumps(digests.run(run)))
        return
    command = bench.go_on(run, words) if asked["do"] == "again" else ("train", *words, f"run_dir={run}")
    os.environ.update(asked["env"])
    sys.path += asked["env"]["PYTHONPATH"].split(os.pathsep)
    from ckpt_chaos.targets.common import arm_from_env  # type: ignore[import-not-found]

    arm_from_env(0, lazy=True)  # where the command is to be killed
    main(list(command))


def _judged(path, failures, expected):
    """One point of the tool's report, and its outcome.

    It is equal (had it ended before it was struck: "had ended"), or refused to go on, or different; or told,
    where half of metrics.csv is gone, all else is equal, and the table itself says how many rows are lost.
    """
    point = json.loads(path.read_text())
    name = point["label"]
    mode = found[1] if (found := re.search(r"\[(\w+)\]$", name)) else "control"
    failure, struck = failures[name], point["crashed"] or mode == "control"
    outcome = failure.get("message") if failure is not None else "equal" if struck else "had ended"
    if "SILENT_DIVERGENCE" in outcome:
        run = path.parent / "out" / "run"
        got = digests.run(run)
        differ = [part for part in expected if got[part] != expected[part]]
        told = differ == ["metrics"] and lost_rows(read_metrics(run))
        outcome = "told" if told else f"other {', '.join(differ)}"
    return {"point": name, "mode": mode, "outcome": outcome}
