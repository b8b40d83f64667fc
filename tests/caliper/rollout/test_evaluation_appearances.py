"""A policy measured where the scene looks otherwise, on the same episodes."""

import json

import pytest

from caliper.analysis.run_data import read_run
from caliper.analysis.run_report import _comparison
from caliper.analysis.stats import wilson
from caliper.cli import main
from caliper.config.build import appearances
from caliper.config.validate import check
from caliper.envs.scene.appearance import AppearanceRanges
from caliper.errors import CaliperError
from caliper.training.run import train

NAMES = ["as_is", "dim_light", "online"]


@pytest.mark.usefixtures("no_report")
def test_each_look_has_its_success_and_interval(configure, tmp_path, capsys):
    folder = tmp_path / "run"
    words = [
        "evaluation.appearance=[as_is,dim_light,online]",
        "online.appearance.light=0.3",
        f"run_dir={folder}",
    ]
    train(configure(*words, "offline.updates=3", "online.env_steps=12"))
    records = [json.loads(p.read_text()) for p in sorted(folder.glob("evaluations/*/evaluation.json"))]
    with_others = [r for r in records if r["others"]]
    assert len(records) > len(with_others) == 2  # the last of each phase
    for record in with_others:
        assert record["appearance"] == "as_is" and list(record["others"]) == NAMES[1:]
        for found in record["others"].values():
            assert found["seeds"] == record["seeds"]
            successes = sum(found["episode_success"])
            assert found["interval"] == pytest.approx(wilson(successes, found["episodes"]))
    page = _comparison(read_run(folder))
    assert all(f"Success, {name}" in page for name in ("as is", "dim light", "online"))
    capsys.readouterr()
    main(["evaluate", str(folder), "evaluation.appearance=[moved_camera,as_is]"])
    printed = capsys.readouterr().out
    assert "with moved_camera: " in printed and "with as_is: " in printed
    record = json.loads((folder / "evaluation.json").read_text())
    assert record["appearance"] == "moved_camera" and list(record["others"]) == ["as_is"]


def test_a_usual_evaluation_tells_of_one_look(finished):
    assert "Success, " not in _comparison(read_run(finished.folder))


def test_names_and_what_they_need(configure):
    config = configure("evaluation.appearance=[online]", "online.appearance.shift=0.01")
    assert appearances(config) == {"online": AppearanceRanges(shift=0.01)}
    for words, said in (
        (["evaluation.appearance=[dark]"], "no 'dark'; choose from: as_is, moved_camera"),
        (["evaluation.appearance=[]"], "at least one"),
        (["online.appearance.light=0.5", "online.appearance.dim=0.5"], "no light"),
        (["obs=state", "encoder=state", "online.appearance.dim=0.5"], "this policy sees none"),
    ):
        with pytest.raises(CaliperError, match=said):
            check(configure(*words))
