"""How `benchmarks/learning.py` collects the numbers of finished runs."""

import json

import pytest
import yaml

from caliper.analysis.comparison import write_sweep
from tests.caliper.analysis.test_comparison import make


@pytest.fixture
def script(benchmark_script):
    return benchmark_script("learning")


def comparison(folder, agent, curves):
    folder.mkdir()
    runs = [(f"agent={agent}", folder / f"agent={agent},seed={seed}") for seed in curves]
    for (_, path), (seed, (offline, online)) in zip(runs, curves.items(), strict=True):
        make(path, agent, seed, offline, online)
    write_sweep(folder, runs)
    return folder


def test_two_comparisons_become_one_result(script, tmp_path):
    first = comparison(tmp_path / "a", "calql", {0: (6, [5, 7, 8, 8, 9, 2]), 1: (4, [6, 9, 3, 10, 10, 8])})
    second = comparison(tmp_path / "b", "iql", {0: (3, [3, 3, 3, 3, 3, 3])})
    result, table = script.collected("door", [first, second], ["one", "two"])
    runs = result["runs"]
    assert [(run["variant"], run["seed"]) for run in runs] == [
        ("agent=calql", 0),
        ("agent=calql", 1),
        ("agent=iql", 0),
    ]
    assert (runs[0]["offline"], runs[0]["online"]) == (0.6, 0.2)
    assert runs[0]["regret"] == pytest.approx(1 - (0.5 + 0.7 + 0.8 + 0.8 + 0.9 + 0.2) / 6, abs=1e-4)
    assert runs[0]["dip"] == pytest.approx(0.1) and runs[2]["dip"] == 0
    assert runs[0]["evaluations"][:2] == [["offline", 100, 0.6, 10], ["online", 100, 0.5, 10]]
    assert result["commands"] == ["one", "two"] and "note" not in result
    assert result["task"] and all("task" not in run and "versions" not in run for run in runs)
    assert "agent=calql" in table and "agent=iql" in table
    text = script.compact(result)
    assert json.loads(text) == result
    assert sum(line.startswith('  {"variant"') for line in text.splitlines()) == 3


def test_a_clone_has_no_regret(script, tmp_path):
    folder = comparison(tmp_path / "a", "bc", {0: (8, [8])})
    path = folder / "agent=bc,seed=0" / "config.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"online": {"env_steps": 0}}))
    (online,) = (folder / "agent=bc,seed=0").glob("evaluations/online_*/evaluation.json")
    online.write_text(json.dumps(json.loads(online.read_text()) | {"env_steps": 0}))
    (run,) = json.loads(script.compact(script.collected("door", [folder], ["one"])[0]))["runs"]
    assert run["regret"] is None and run["online"] == 0.8


def test_the_seeds_of_another_day_are_added(script, tmp_path):
    first = comparison(tmp_path / "a", "cql", {0: (6, [5, 7, 8, 8, 9, 2]), 1: (4, [6, 9, 3, 10, 10, 8])})
    second = comparison(tmp_path / "b", "cql", {1: (5, [5, 5, 5, 5, 5, 5]), 2: (3, [3, 3, 3, 3, 3, 3])})
    old = json.loads(script.compact(script.collected("door", [first], ["one"])[0]))
    old["versions"] = old.get("versions") or "of another day"
    result, table = script.collected("door", [second], ["one", "two"], old=old)
    assert [(run["seed"], run["offline"]) for run in result["runs"]] == [(0, 0.6), (1, 0.5), (2, 0.3)]
    assert result["commands"] == ["one", "two"]
    assert "versions" not in result  # they differ, so each run tells its own
    assert [run["versions"] for run in result["runs"]] == ["of another day", None, None]
    assert "agent=cql" in table


def test_a_run_that_is_not_finished_is_named(script, tmp_path):
    folder = comparison(tmp_path / "a", "cql", {0: (8, [3, 4, 6, 8, 9, 9]), 1: (8, [2, 5])})
    with pytest.raises(ValueError, match=r"agent=cql,seed=1 is not finished; give its comparison's command"):
        script.collected("door", [folder], ["one"])
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match=r"no runs in .*none; name a folder that caliper compare made"):
        script.collected("door", [tmp_path / "none"], ["one"])
