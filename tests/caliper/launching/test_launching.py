"""Where a sweep's runs may go, what is said of mistakes, and the table of what runs."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from caliper.cli import main
from caliper.errors import CaliperError
from caliper.launching.choose import choose
from caliper.launching.job import Job, busy
from caliper.launching.local import Local
from caliper.launching.slurm import Slurm
from caliper.launching.table import progress
from caliper.utils.files import holder, locked


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["launcher=slrum"], "there is no launcher 'slrum'; did you mean slurm?"),
        (["sweep.slurm.minutes=9"], "sweep.slurm.minutes is a key of another launcher; add launcher=slurm"),
        (["launcher=slurm", "sweep.slurm.minuts=9"], "there is no key 'sweep.slurm.minuts'"),
        (["launcher=slurm", "sweep.slurm.minutes=1"], "must be a whole number, at least 2"),
        (["launcher=ray", "sweep.ray.cpus=half"], "must be a whole number, at least 1"),
        (["sweep.job=3"], "there is no key 'sweep.job'"),
    ],
)
def test_a_mistake_is_one_sentence(words, sentence, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["sweep", f"sweep.dir={tmp_path / 'sweep'}", *words])
    assert stopped.value.code == 2 and sentence in capsys.readouterr().err


@pytest.mark.parametrize(("name", "package"), [("slurm", "submitit"), ("ray", "ray")])
def test_a_missing_extra_is_named(name, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(CaliperError, match=rf"needs (?i:{package}) .*pip install 'caliper-rl\[{name}\]'"):
        choose(name, {}, "sweep")


def test_this_machine_is_the_default():
    assert isinstance(choose("local", {}, "compare"), Local)


# A cluster's worker is a small process, of which a fork is cheap; that of the tests has run many others.
STOPPED_AS_ASKED = """
run = job.start(leashed=True)
time.sleep(0.2)
for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
    run.send_signal(number)
time.sleep(0.2)
assert run.poll() is None
run.send_signal(signal.SIGINT)
assert run.wait(timeout=10) == -signal.SIGINT
"""


def in_a_worker(folder, code):
    """Exit status of code that finds a `job` there, whose words make no sense."""
    start = f"""
import os, signal, sys, time
from pathlib import Path
from caliper.launching.job import Attempt, Job
job = Job("all", Path({str(folder)!r}, "run"), ("nonsense",))
"""
    return subprocess.run([sys.executable, "-c", start + code]).returncode


def test_a_run_that_cannot_begin_ends_with_its_status_in_its_log(tmp_path):
    assert in_a_worker(tmp_path, "sys.exit(10 + Attempt(job, os.getcwd())())") == 12
    assert "caliper: 'nonsense' is not understood" in (tmp_path / "run.log").read_text()


def test_a_leashed_run_ignores_a_cluster_and_stops_with_its_attempt(tmp_path):
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nexec sleep 30\n")
    script.chmod(0o755)
    assert in_a_worker(tmp_path, f"sys.executable = {str(script)!r}" + STOPPED_AS_ASKED) == 0


ON_A_LEASH = """
import threading
for _ in range(8):
    threading.Thread(target=time.sleep, args=(60,)).start()
job.start(leashed=True)
while not Path("ready").exists():
    time.sleep(0.02)
os.kill(os.getpid(), signal.SIGKILL)
"""
NOTES_SIGNALS = """#!{python}
import signal, time
def note(number, frame):
    with open("come", "a") as file:
        print(number, file=file)
for number in (signal.SIGINT, signal.SIGHUP):
    signal.signal(number, note)
open("ready", "w").close()
for _ in range(100):
    time.sleep(0.05)
open("done", "w").close()
"""


def test_the_death_of_a_parent_with_many_threads_asks_and_never_stops_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "python"
    script.write_text(NOTES_SIGNALS.format(python=sys.executable))
    script.chmod(0o755)
    assert in_a_worker(tmp_path, f"sys.executable = {str(script)!r}" + ON_A_LEASH) == -signal.SIGKILL
    deadline = time.monotonic() + 60
    while not Path("done").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert set(Path("come").read_text().split()) == {str(int(signal.SIGHUP))}


def test_a_locked_folder_says_where_its_run_is(tmp_path):
    assert holder(tmp_path) == "" and not busy(tmp_path)
    with locked(tmp_path):
        assert holder(tmp_path) == socket.gethostname() and busy(tmp_path)


def test_what_is_no_lock_and_no_log_is_neither_waited_for_nor_written_to(tmp_path, monkeypatch):
    precious, job = tmp_path / "precious", Job("all", tmp_path / "run", ())
    precious.write_text("mine")
    job.log.symlink_to(precious)
    monkeypatch.setattr(sys, "executable", "true")
    assert job.start().wait() == 0
    assert precious.read_text() == "mine" and job.log.read_text().startswith("$ true -m caliper train")
    (job.folder / ".lock").mkdir(parents=True)
    with pytest.raises(CaliperError, match=r"\.lock is no file"):
        busy(job.folder)


def test_the_table_tells_phase_step_success_and_speed(configure, tmp_path):
    config = configure("online.env_steps=500")
    nothing = {"phase": "", "step": "", "success": "", "speed": ""}
    assert progress(tmp_path, config) == nothing
    rows = ["phase,env_steps,updates,wall_s,cpu_s,bc_updates", "offline,0,0,1.0,1.0,2"]
    table = tmp_path / "metrics.csv"
    table.write_text("\n".join([*rows, "offline,0,0,2.0,2.0,4", ""]))
    assert progress(tmp_path, config) == nothing | {"phase": "bc", "step": "4/4 updates", "speed": "2.0/s"}
    rows += ["offline,0,1,3.0,3.0,", "offline,0,5,5.0,5.0,"]
    table.write_text("\n".join([*rows, "offline,0,6,9"]))  # a row that is half written
    assert progress(tmp_path, config) == nothing | {
        "phase": "offline",
        "step": "5/6 updates",
        "speed": "2.0/s",
    }
    rows += ["online,100,6,10.0,9.0,", "online,160,9,14.0,9.0,"]
    table.write_text("\n".join([*rows, ""]))
    folder = tmp_path / "evaluations" / "online_100"
    folder.mkdir(parents=True)
    (folder / "evaluation.json").write_text(json.dumps({"success_once": 0.25}))
    told = {"phase": "online", "step": "160/500 steps", "speed": "15.0/s", "success": "0.25"}
    assert progress(tmp_path, config) == told
    table.write_text("\n".join([*rows, "online,\x1b[2J7,9,19.0,9.0,", ""]))  # of a stranger
    assert "\x1b" not in progress(tmp_path, config)["step"]


@pytest.mark.parametrize("note", [b"12\xff", b"9" * 5000, None])
def test_a_damaged_note_of_a_job_is_a_job_that_is_not_there(note, tmp_path, monkeypatch):
    class Executor:
        def __init__(self, folder, **_):
            folder.mkdir(exist_ok=True)

        def update_parameters(self, **_):
            pass

        def submit(self, _):
            return SimpleNamespace(job_id=77)

    for tool in ("sbatch", "srun", "scancel", "squeue"):
        (tmp_path / tool).write_text(r"#!/bin/sh" + "\n" + r"printf '12|RUNNING|n\377de\n'")
        (tmp_path / tool).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setitem(sys.modules, "submitit", SimpleNamespace(SlurmExecutor=Executor))
    place = tmp_path / "s" / ".slurm" / "seed=0.job"
    place.parent.mkdir(parents=True)
    if note is not None:
        place.write_bytes(note)
    Slurm().start(Job("all", tmp_path / "s" / "seed=0", ()))
    assert place.read_text() == "77"
