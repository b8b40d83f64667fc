"""`caliper sweep` and `compare`: what they run, that they go on after a kill; tables say what runs say."""

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from caliper.analysis.comparison import write_sweep
from caliper.analysis.run_data import read_run
from caliper.analysis.run_table import numbers, runs_of, variant_of
from caliper.cli import main
from caliper.config import estimate
from caliper.config.compose import compose, to_yaml
from caliper.errors import CaliperError
from caliper.launching.job import finished
from caliper.tools.sweep import expand
from caliper.utils.files import locked


def test_every_combination_gets_a_folder_and_its_share_of_the_cores(tmp_path, monkeypatch):
    monkeypatch.setattr("caliper.tools.sweep.cores", lambda: 8)
    words = ["task=lift", "agent=calql,cql", "seed=0,1", "task.cameras=[agentview,frontview]"]
    jobs = expand(words, tmp_path, 2)
    assert [job.folder.name for job in jobs] == [
        f"agent={a},seed={s}" for a in ("calql", "cql") for s in (0, 1)
    ]
    assert [job.variant for job in jobs] == ["agent=calql"] * 2 + ["agent=cql"] * 2
    assert jobs[3].words[:5] == (words[0], words[3], "threads=4", "agent=cql", "seed=1")
    assert jobs[0].log == tmp_path / "agent=calql,seed=0.log"
    (alone,) = expand(["task=lift", "threads=3"], tmp_path, 2)
    assert (alone.variant, alone.folder.name) == ("all", "run") and "threads=3" in alone.words


def test_paths_are_taken_letter_by_letter(tmp_path):
    folder, odd = tmp_path / "it's mine", tmp_path / "my dätä, first.hdf5"
    odd.touch()
    jobs = expand(["task=lift", "seed=0,1", f"data.path={odd}"], folder, 1)
    configs = [compose(list(job.words)) for job in jobs]
    assert [c.run_dir for c in configs] == [str(folder / "seed=0"), str(folder / "seed=1")]
    assert [c.data.path for c in configs] == [str(odd)] * 2
    swept = expand(["task=lift", "data.path=a b.hdf5,c.hdf5"], folder, 1)
    assert [compose(list(job.words)).data.path for job in swept] == ["a b.hdf5", "c.hdf5"]
    assert [job.folder.name for job in swept] == ["data.path=a b.hdf5", "data.path=c.hdf5"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["seed=0,1", "run_dir=x"], "leave run_dir out, or set VERB.dir"),
        (["seed=[0,"], "'seed=[0,' cannot be read; write a VERB as"),
        (["batch_size=8", "seed=0,1,"], "'seed=0,1,' cannot be read; write a VERB as"),
        (["seed=range(0,1000000000)"], "this VERB would be of more than 10000 runs"),
        (["seed=range(0,1000)", "batch_size=range(1,1000)"], "more than 10000 runs"),
        (["seed=0,1,0"], "this VERB would make seed=0 twice"),
        (["seed=0,1", "hydra.run.dir=x"], "Hydra's own settings are not used here"),
        (["seed=0,1", "~agent"], "no key can be left out of a run"),
        (["seed=0,1", "agent=calq"], "there is no agent 'calq'"),
        (["VERB.jobs=many"], "VERB.jobs=many"),
        (["VERB.jobs=0"], "VERB.jobs=0"),
    ],
)
@pytest.mark.parametrize("verb", ["sweep", "compare"])
def test_mistakes_stop_it_before_any_run(verb, words, sentence, tmp_path, capsys):
    words, sentence = ([text.replace("VERB", verb) for text in texts] for texts in (words, [sentence]))
    with pytest.raises(SystemExit) as stopped:
        main([verb, f"{verb}.dir={tmp_path / 'sweep'}", *words])
    assert stopped.value.code == 2 and sentence[0] in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("agent=cql,seed=0", "agent=cql"),
        ("seed=10", "all"),
        ("run", "all"),
        ("seed=1,task.cameras=[a,b],data.seed=2", "task.cameras=[a,b],data.seed=2"),
    ],
)
def test_a_folder_names_its_variant(name, variant):
    assert variant_of(name) == variant


def table(folder):
    return list(csv.DictReader((folder / "variants.csv").read_text().splitlines()))


def command(words, folder, verb="sweep"):
    return [sys.executable, "-m", "caliper", verb, *words, f"{verb}.dir={folder}", f"{verb}.jobs=2"]


def running(word):
    """The process that has a word on its command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if word.encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    (pid,) = found
    return pid


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "summary"), [("sweep", "variants.csv"), ("compare", "variants.csv")])
def test_it_goes_on_after_a_kill(verb, summary, words, tmp_path):
    """Both the harness and one of its runs are killed in the middle; the other run finishes by itself."""
    folder = tmp_path / "sweep"
    line = command(words("seed=0,1"), folder, verb)
    harness = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    victim = folder / "seed=1"
    deadline = time.monotonic() + 120
    while not (victim / "checkpoints" / "latest").exists():
        assert time.monotonic() < deadline and harness.poll() is None
        time.sleep(0.02)
    harness.kill()
    os.kill(running(f"run_dir={victim}"), signal.SIGKILL)
    harness.wait()
    assert not finished(victim)
    again = subprocess.run(line, capture_output=True, text=True, timeout=200)
    assert again.returncode == 0, again.stderr
    assert finished(folder / "seed=0") and finished(victim)
    assert "resume" in (folder / "seed=1.log").read_text()
    assert "resume" not in (folder / "seed=0.log").read_text()
    records = json.loads((folder / "runs.json").read_text())
    assert [r["seed"] for r in records] == [0, 1] and all(r["env_steps"] == 28 for r in records)
    (row,) = csv.DictReader((folder / summary).read_text().splitlines())
    assert row["variant"] == "all" and row["seeds"] == "2"
    assert (folder / "report.html").exists() == (verb == "compare")
    # what is finished is left alone
    before = (victim / "report.html").stat().st_mtime_ns
    subprocess.run(line, check=True, capture_output=True, timeout=100)
    assert (victim / "report.html").stat().st_mtime_ns == before


def test_runs_that_do_not_fit_side_by_side_are_not_started(words, tmp_path, monkeypatch, capsys):
    run = compose(words("seed=0", "threads=1"))
    size = sum(part.size for part in estimate.estimate(run))
    monkeypatch.setattr(estimate, "free_memory", lambda: int(1.5 * size))  # one of them fits
    with pytest.raises(SystemExit) as stopped:
        main(["sweep", f"sweep.dir={tmp_path / 'sweep'}", "sweep.jobs=2", *words("seed=0,1", "threads=1")])
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and "2 runs at once would take" in said and "give sweep.jobs=1" in said
    assert not (tmp_path / "sweep").exists()


def test_what_was_begun_with_other_words_is_not_taken_for_these(words, tmp_path, capsys):
    run = tmp_path / "seed=0"
    run.mkdir()
    common = words("agent.discount=0.9", "threads=1")
    begun = compose([*common, "seed=0", f"run_dir={run}"])
    (run / "config.yaml").write_text(to_yaml(begun))
    with pytest.raises(SystemExit):
        main(["sweep", f"sweep.dir={tmp_path}", *words("agent.discount=0.5", "seed=0,1", "threads=1")])
    said = capsys.readouterr().err
    assert f"{run} was begun with agent.discount=0.9, not 0.5; give the words as then" in said
    assert not (tmp_path / "seed=1").exists()


@pytest.mark.slow
def test_a_run_that_fails_is_named_and_the_others_finish(words, tmp_path):
    folder = tmp_path / "sweep"
    (folder / "seed=0" / "checkpoints").mkdir(parents=True)
    (folder / "seed=0" / "checkpoints" / "latest").write_text("nonsense")
    done = subprocess.run(command(words("seed=0,1"), folder), capture_output=True, text=True, timeout=200)
    assert done.returncode == 2 and f"1 of 2 runs failed; read {folder / 'seed=0.log'}" in done.stderr
    assert finished(folder / "seed=1")


def test_a_second_process_is_kept_out(tmp_path):
    with locked(tmp_path), pytest.raises(CaliperError, match="another process is at work"), locked(tmp_path):
        pass
    with locked(tmp_path):  # free again
        pass


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_every_run(number, words, tmp_path):
    folder = tmp_path / "sweep"
    line = command(words("seed=0,1", "online.env_steps=100000"), folder)
    harness = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while len(list(folder.glob("*/evaluations/online_*"))) < 2:
        assert time.monotonic() < deadline and harness.poll() is None
        time.sleep(0.05)
    harness.send_signal(number)
    _, printed = harness.communicate(timeout=60)
    assert harness.returncode == 130 and "give the same command to go on" in printed
    for seed in (0, 1):
        assert "stopped and saved" in (folder / f"seed={seed}.log").read_text()


def test_the_table_says_what_the_curves_say(tmp_path):
    from tests.caliper.analysis.test_run_report import config, evaluation, metrics

    runs = []
    for seed, curve in enumerate([(5, 3, 4, 5, 8, 10), (6, 6, 6, 6, 6, 6)]):
        folder = tmp_path / f"seed={seed}"
        config(folder, seed=seed, online={"env_steps": 600})
        metrics(folder)
        evaluation(folder, "offline", 0, 100, 6)
        for i, wins in enumerate(curve):
            evaluation(folder, "online", 100 * (i + 1), 100 + 20 * i, wins)
        runs.append(("all", folder))
    first = numbers(read_run(runs[0][1]))
    # trapezoids over 500 steps: (.4 + .35 + .45 + .65 + .9) / 5; the fall from .6 to .5 within a fifth
    assert first["area"] == pytest.approx(0.55) and first["worst_late"] == pytest.approx(0.3)
    assert first["dip"] == pytest.approx(0.1) and first["offline"] == 0.6 and first["online"] == 1.0
    text = write_sweep(tmp_path, [*runs, ("all", tmp_path / "not yet")])
    (row,) = table(tmp_path)
    assert float(row["online"]) == pytest.approx(0.8)  # mean of 1 and .6
    assert float(row["worst_late"]) == pytest.approx(0.3)
    assert float(row["dip"]) == pytest.approx(0.05)  # mean of .1 and 0
    assert text.splitlines()[0].split()[:4] == ["variant", "seeds", "offline", "online"]
    assert (tmp_path / "curves.png").stat().st_size > 5000
    config(tmp_path / "seed=7")  # has begun since
    assert runs_of(tmp_path) == [*runs, ("all", tmp_path / "seed=7")]
    assert runs_of(tmp_path / "seed=0") == []
    (tmp_path / "runs.csv").write_text("a,b\n1,2\n")
    with pytest.raises(CaliperError, match="has no column 'run'"):
        runs_of(tmp_path)
