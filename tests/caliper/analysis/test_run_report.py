import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import yaml

from caliper.analysis.calibration import calibration, reliability, values
from caliper.analysis.diagnostics import cka, failure_diagnostics
from caliper.analysis.plots import draw, learning_curve, losses, thousands
from caliper.analysis.run_data import read_run
from caliper.analysis.run_report import write_report
from caliper.analysis.stats import wilson
from caliper.errors import CaliperError
from caliper.training.logger import Logger
from caliper.utils.foreign import sealed_yaml, write_json
from caliper.utils.provenance import provenance


def evaluation(folder, phase, env_steps, updates, wins, critic=True, n=10, **extra):
    path = folder / "evaluations" / f"{phase}_{env_steps:08d}_{updates:08d}"
    path.mkdir(parents=True)
    success = [i < wins for i in range(n)]
    record = {
        "success_once": wins / n,
        "episodes": n,
        "interval": wilson(wins, n),
        "env_steps": env_steps,
        "updates": updates,
        "phase": phase,
        "episode_success": success,
        "lengths": [5] * n,
        "seeds": list(range(n)),
    }
    (path / "evaluation.json").write_text(json.dumps(record | extra))
    if critic:
        left = np.tile(np.arange(5)[::-1], n)
        g = np.where(np.repeat(success, 5), 10.0 - left, -33.3)
        episode = np.repeat(np.arange(n), 5)
        q = {"q": g + 2, "q_best": g + 3, "q_random": g - 5, "q_random_best": g, "width": 0 * g + 0.1}
        features = np.random.default_rng(updates).normal(size=(20, 4))
        np.savez(
            path / "calibration.npz", mc_return=g, time_to_go=left, episode=episode, features=features, **q
        )
    return path


def metrics(folder, online=True, critic=True):
    with Logger(folder) as run:
        for updates in range(10, 210, 10):
            row = {"actor/loss": 1 / updates, "actor/entropy": -1.0}
            if critic:
                row |= {
                    "critic/bound_rate": 0.5,
                    "critic/q_data": 1.0,
                    "critic/q_pi": 2.0,
                    "critic/q_random": 0.0,
                }
            after = online and updates > 100
            run.log("online" if after else "offline", (updates - 100) * 2 if after else 0, updates, row)


def config(folder, **extra):
    folder.mkdir(exist_ok=True)
    content = {
        "task": {"name": "lift"},
        "agent": {"name": "calql"},
        "encoder": {"name": "conv"},
        "seed": 3,
    } | extra
    (folder / "config.yaml").write_text(yaml.safe_dump(content))


@pytest.fixture
def whole(tmp_path):
    """A run with everything: offline .2 .6, online .5 .3 .4 .5 .8 1.0."""
    folder = tmp_path / "run"
    config(folder, agent={"name": "calql", "tau": "<b>fast</b>"})
    (folder / "git.json").write_text(json.dumps(provenance(directory=folder)))
    first = {"learner": "cuda", "learner_why": "device=auto, and torch sees H200"}
    first |= {"engine": "batch", "engine_device": "cpu", "engine_why": "sim=batch"}
    starts = [first, first | {"learner": "cpu", "learner_why": "device=<cpu>"}]
    (folder / "devices.json").write_text(json.dumps({"starts": starts}))
    metrics(folder)
    for i, wins in enumerate((2, 6)):
        evaluation(folder, "offline", 0, 50 * (i + 1), wins)
    for i, wins in enumerate((5, 3, 4, 5, 8, 10)):
        evaluation(folder, "online", 100 * (i + 1), 100 + 20 * i, wins)
    (folder / "videos").mkdir()
    for name in ("online_a_success", "online_z_failure"):
        (folder / "videos" / f"{name}.mp4").write_bytes(b"mp4 " + name.encode())
    (folder / "videos" / "half.mp4.partial").write_bytes(b"")
    return folder


class Page(HTMLParser):
    """Collects what a page refers to, and checks that its tags are balanced."""

    VOID = ("meta", "img")

    def __init__(self, text):
        super().__init__()
        self.open, self.sources, self.alts, self.text = [], [], [], ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.sources += [v for k, v in attributes if k in ("src", "href")]
        if tag in ("img", "video"):
            self.alts.append(values.get("alt") or values["aria-label"])
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_a_whole_run(whole):
    path = write_report(whole)
    assert path == whole / "report.html"
    text = path.read_text()
    page = Page(text)
    assert sorted(p.name for p in (whole / "plots").iterdir()) == [
        "calibration.png",
        "diagnostics.png",
        "learning_curve.png",
        "losses.png",
        "reliability.png",
        "values.png",
    ]
    assert len(page.sources) == 8 and all(s.startswith("data:") for s in page.sources)
    assert not re.search(r"https?:|url\(|<script|@import", text)
    assert len(page.alts) == 8 and all(page.alts)
    for words in ("lift", "calql · conv · seed 3", "Success rose: 60% of 10 episodes", "no GPU|cores of"):
        assert re.search(words, page.text), words
    assert "4 were won over and 0 were lost (sign test, p = 0.12)" in page.text
    assert "agent.tau = <b>fast</b>, published 0.005" in page.text and "<b>" not in text  # escaped
    assert page.text.index("Online z failure") < page.text.index("Online a success")
    assert text.isascii() or 'charset="utf-8"' in text
    before = (whole / "report.html").stat().st_mtime_ns
    assert write_report(whole).stat().st_mtime_ns >= before  # writing again is fine


def test_the_numbers_of_a_run(whole):
    run = read_run(whole)
    assert run.problems == ()
    assert [e.success_once for e in run.phase("online")] == [0.5, 0.3, 0.4, 0.5, 0.8, 1.0]
    assert run.switch == 100
    assert run.regret == pytest.approx(1 - 3.5 / 6)
    assert run.dip == pytest.approx(0.1)  # only the evaluation at 100 of 600 steps is in the first fifth
    assert set(run.git) == {"caliper", "directory", "started", "hardware", "versions"}


def test_an_evaluation_at_the_switch_does_not_dilute_regret(whole):
    evaluation(whole, "online", 0, 100, 6)
    assert read_run(whole).regret == pytest.approx(1 - 3.5 / 6)


def test_figures_carry_the_data(whole):
    run = read_run(whole)
    offline, online = draw(learning_curve, run).axes
    assert offline.lines[0].get_xdata().tolist() == [50, 100]
    # The online curve starts at the last offline point, and all axes share the range [0, 1].
    assert online.lines[0].get_xydata()[:2].tolist() == [[0, 0.6], [100, 0.5]]
    assert "dip 0.10" in online.get_title(loc="right") and "regret 0.42" in online.get_title(loc="right")
    for ax in draw(calibration, run).axes:
        assert (
            "mean error of Q: +2.00" in ax.texts[0].get_text()
            and "100% of the steps" in ax.texts[0].get_text()
        )
    after = draw(reliability, run).axes[1]
    np.testing.assert_allclose(after.lines[1].get_ydata() - after.lines[0].get_ydata(), 2)
    assert after.get_xlim()[0] > after.get_xlim()[1]
    assert [ax.get_title(loc="left") for ax in draw(values, run).axes] == [
        "Bound rate", "Mean Q in training", "Q and return in evaluation",
    ]  # fmt: skip
    assert len(draw(losses, run).axes) == 2


def test_an_offline_run_without_a_critic(tmp_path):
    config(tmp_path, agent={"name": "bc"})
    metrics(tmp_path, online=False, critic=False)
    evaluation(tmp_path, "offline", 0, 100, 7, critic=False)
    page = Page(write_report(tmp_path).read_text())
    assert "The online phase has no evaluation yet." in page.text
    assert "critic calibrated" not in page.text and "Videos" not in page.text
    assert "Nothing: the algorithm as published." in page.text
    assert sorted(p.name for p in (tmp_path / "plots").iterdir()) == ["learning_curve.png", "losses.png"]


def test_online_only_and_one_episode_type(tmp_path):
    metrics(tmp_path)
    evaluation(tmp_path, "online", 0, 0, 0, episode_success=[])  # nothing moved yet; outcomes not recorded
    page = Page(write_report(tmp_path).read_text())
    assert "After the online phase so far the policy succeeds in 0%" in page.text


@pytest.mark.parametrize("piece", ["config", "metrics", "evaluation"])
def test_any_single_piece_makes_a_report(tmp_path, piece):
    if piece == "config":
        config(tmp_path)
    elif piece == "metrics":
        metrics(tmp_path, online=False)
    else:
        evaluation(tmp_path, "offline", 0, 10, 5)
    Page(write_report(tmp_path).read_text())


def test_no_piece_at_all_is_one_sentence(tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(CaliperError, match="is not a run folder"):
            write_report(folder)
    assert not list(tmp_path.iterdir())


def test_where_it_ran_and_why_is_told(whole):
    text = Page(write_report(whole).read_text()).text
    told = "learner on cuda (device=auto, and torch sees H200), sim=batch on cpu (sim=batch); then learner"
    assert told in text and "device=<cpu>" in text


def test_damaged_pieces_are_named_and_left_out(whole):
    newest = sorted((whole / "evaluations").iterdir())[-1]
    (newest / "calibration.npz").write_bytes(b"torn")
    (sorted((whole / "evaluations").iterdir())[0] / "evaluation.json").write_text("{")
    (whole / "config.yaml").write_text("a: [")
    (whole / "git.json").write_text('{"caliper": 5}')
    (whole / "devices.json").write_text('{"starts": [{"learner": "cpu"}]}')
    (whole / "metrics.csv").write_text("x\n")
    run = read_run(whole)
    assert len(run.problems) == 6 and run.devices == () and len(run.evaluations) == 7
    assert run.last("online").success_once == 1.0 and not run.last("online").calibration
    page = Page(write_report(whole).read_text())
    assert "Some files could not be read" in page.text and "config.yaml:" in page.text


def test_a_file_without_a_checksum_among_others_that_have_one_is_told(tmp_path):
    write_json(tmp_path / "git.json", {"caliper": {"version": "1"}})
    text = sealed_yaml("task: lift\n")
    (tmp_path / "config.yaml").write_text(text)
    evaluation(tmp_path, "offline", 0, 10, 5)
    (left,) = read_run(tmp_path).problems
    assert left.startswith("evaluations/offline_00000000_00000010/evaluation.json: carries no checksum")
    (tmp_path / "config.yaml").write_text(text.partition("\n")[2].replace("lift", "door"))
    (tmp_path / "git.json").write_text('{"caliper": {"version": "2"}}')
    assert read_run(tmp_path).problems == ()  # an older run, of which no file has one
    write_json(tmp_path / "git.json", {"caliper": {"version": "1"}})
    assert read_run(tmp_path).problems[0].startswith("config.yaml: carries no checksum")


def test_the_score_of_a_task_with_several_parts_is_read(tmp_path):
    evaluation(tmp_path, "offline", 0, 10, 5, score=2.6)
    evaluation(tmp_path, "offline", 0, 20, 4)  # of an older run
    assert [e.score for e in read_run(tmp_path).evaluations] == [2.6, 0.4]


@pytest.mark.parametrize("score", [True, "2", float("nan"), None])
def test_a_score_that_is_no_number_is_told(tmp_path, score):
    evaluation(tmp_path, "offline", 0, 10, 5, score=score)
    run = read_run(tmp_path)
    assert not run.evaluations and f"score is {score!r}, not a number" in run.problems[0]


def test_returns_that_are_unknown_are_left_out(tmp_path):
    path = evaluation(tmp_path, "offline", 0, 10, 5)
    arrays = dict(np.load(path / "calibration.npz"))
    arrays["mc_return"][::2] = np.nan
    np.savez(path / "calibration.npz", **arrays)
    assert len(read_run(tmp_path).last("offline").calibration["q"]) == 25
    write_report(tmp_path)


def test_a_fall_is_called_a_fall(tmp_path):
    evaluation(tmp_path, "offline", 0, 10, 8)
    evaluation(tmp_path, "online", 500, 20, 3)
    text = Page(write_report(tmp_path).read_text()).text
    assert "Success fell: 80%" in text and "0 were won over and 5 were lost" in text


def test_starts_that_are_never_solved_are_named(tmp_path):
    """Seeds 8 and 9 fail in all four online evaluations; 7 was solved once, and counts as chance."""
    evaluation(tmp_path, "offline", 0, 10, 10)
    for step, wins in enumerate((7, 8, 6, 7)):
        evaluation(tmp_path, "online", 500 * step, 20 + step, wins)
    text = Page(write_report(tmp_path).read_text()).text
    assert "Of the 10 starts of all 4 online evaluations, 2 were never solved: seeds 8, 9." in text
    assert f"caliper render {tmp_path} evaluation.seed=8 video.episodes=1" in text


def test_thousands():
    assert [thousands(x) for x in (0, 500, 2000, 2500, 1.5e6)] == ["0", "500", "2k", "2.5k", "1.5M"]


def test_centred_kernel_alignment():
    g = np.random.default_rng(0)
    x = g.normal(size=(50, 3))
    turn = np.linalg.qr(g.normal(size=(3, 3)))[0]
    assert cka(x, 5 * x @ turn + 7) == pytest.approx(1)
    # one column against another: the squared correlation, here 1 / 2
    a, b = np.array([[1.0], [-1.0], [1.0], [-1.0]]), np.array([[2.0], [-2.0], [0.0], [0.0]])
    assert cka(a, b) == pytest.approx(0.5)
    assert cka(a, np.zeros((4, 1))) == 0


def test_causes_shows_what_was_measured(whole):
    figure = failure_diagnostics(read_run(whole))
    off_data, rough, drift, width = figure.axes[:4]
    lines = {line.get_label(): line.get_ydata() for line in off_data.lines}
    g = lines["return that followed"]
    np.testing.assert_allclose(lines["Q of the action taken"], g + 2)
    np.testing.assert_allclose(lines["Q of uniform actions, mean"], g - 5)
    np.testing.assert_allclose(rough.lines[0].get_ydata(), 1)
    moved = drift.lines[0].get_ydata()  # the features are drawn anew unless the updates are the same
    assert (moved > 0).tolist() == [True, False, *5 * [True]]
    assert width.lines[0].get_ydata().tolist() == [0.2, 0.6, 0.5, 0.3, 0.4, 0.5, 0.8, 1.0]
