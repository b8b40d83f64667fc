"""`caliper compare`: every number on hand-made curves, a comparison half done, the page in a browser."""

import csv
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import yaml

from caliper.analysis import comparison_plots as contrast
from caliper.analysis import page, plots
from caliper.analysis.comparison import write_comparison
from caliper.analysis.comparison_plots import by_value
from caliper.analysis.comparison_summary import summary
from caliper.analysis.plots import draw
from caliper.analysis.run_report import write_report
from caliper.analysis.run_table import runs_of, write_runs
from caliper.analysis.stats import stratified_bootstrap
from caliper.analysis.variant import Variant, estimate, gather
from caliper.cli import main
from caliper.errors import CaliperError
from caliper.rollout.video import write_video
from tests.caliper.analysis.browser import Browser
from tests.caliper.analysis.test_run_report import Page, config, evaluation, metrics

STEPS = 600
# Won of 10: at the end of the offline phase, and online at 100, 200, ... environment steps.
CALQL = {
    0: (6, [5, 7, 8, 8, 9, 2]),
    1: (4, [6, 9, 3, 10, 10, 8]),
    2: (6, [6, 6, 6, 6, 6, 6]),
    3: (8, [5, 9, 9, 9, 9, 10]),
}
CQL = {0: (8, [3, 4, 6, 8, 9, 9]), 1: (8, [2, 5])}
BC = {0: (3, [3, 3, 3, 3, 3, 3])}
VARIANTS = {"calql": CALQL, "cql": CQL, "bc": BC}


def make(folder, agent, seed, offline, online, **extra):
    """A run folder; its online phase is to have 600 steps."""
    own = {"name": agent, "precision": "bfloat16"} | ({"actor_lr": "<only>"} if agent == "cql" else {})
    config(folder, agent=own, seed=seed, online={"env_steps": STEPS}, **extra)
    metrics(folder, critic=agent != "bc")
    evaluation(folder, "offline", 0, 100, offline, critic=agent != "bc")
    for i, wins in enumerate(online):
        evaluation(folder, "online", 100 * (i + 1), 120 + 20 * i, wins, critic=agent != "bc")
    if len(online) == 6:
        (folder / "report.html").write_text("<!DOCTYPE html><title>a run</title>")


def fill(folder):
    """Cal-QL finished with four seeds, CQL with one of two, cloning with one, SAC not begun."""
    planned = []
    for agent, seeds in VARIANTS.items():
        for seed, curve in seeds.items():
            planned.append((f"agent={agent}", folder / f"agent={agent},seed={seed}"))
            make(planned[-1][1], agent, seed, *curve)
    frames = np.random.default_rng(0).integers(0, 255, (6, 64, 64, 3), dtype=np.uint8)
    for agent in ("calql", "cql"):
        for name in ("other", "rollouts"):
            write_video(folder / f"agent={agent},seed=0" / "videos" / f"{name}.mp4", frames, 10)
    return [*planned, ("agent=sac", folder / "agent=sac,seed=0")]


@pytest.fixture
def runs(tmp_path):
    """As `fill`, to be changed, and without the figures, which take longer than all the rest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "draw", lambda *_: None)
        yield fill(tmp_path)


@dataclass
class Written:
    folder: Path
    runs: list[tuple[str, Path]]
    printed: str


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """As `fill`, with its page."""
    folder = tmp_path_factory.mktemp("comparison")
    runs = fill(folder)
    return Written(folder, runs, write_comparison(folder, runs))


def rows(folder):
    return {row["variant"]: row for row in csv.DictReader((folder / "variants.csv").read_text().splitlines())}


def read(runs):
    return gather(runs, write_runs(runs[0][1].parent, runs))


def test_every_number_by_hand(written):
    row = {k: float(v) for k, v in rows(written.folder)["agent=calql"].items() if k != "variant"}
    # Four seeds: the interquartile mean is that of the middle two.
    assert row["seeds"] == 4
    assert row["offline"] == pytest.approx(0.6)  # .4 .6 .6 .8
    assert row["online"] == pytest.approx(0.7)  # .2 .6 .8 1.
    # failure rates averaged over six evaluations: .35 .2333 .4 .15
    assert row["regret"] == pytest.approx((0.35 + 14 / 60) / 2, abs=1e-4)
    # Falls at 100 of 600 steps, the only one in the first fifth: .1 0 0 .3
    assert row["dip"] == pytest.approx(0.05)
    # trapezoids over 500 steps: (.6 + .75 + .8 + .85 + .55) / 5 = .71, .78, .6, .87
    assert row["area"] == pytest.approx(0.745)
    assert row["worst_late"] == pytest.approx(0.2)
    for name, seeds in (("online", [0.2, 0.8, 0.6, 1.0]), ("dip", [0.1, 0, 0, 0.3])):
        low, high = stratified_bootstrap(np.array(seeds)[:, None])
        assert (row[f"{name}_low"], row[f"{name}_high"]) == pytest.approx((low, high), rel=1e-3)
        assert low < row[name] < high
    assert "agent=calql  4      0.60     0.70" in written.printed
    assert written.printed.endswith(f"report: {written.folder / 'report.html'}")
    page = Page((written.folder / "report.html").read_text()).text
    low, high = stratified_bootstrap(np.array([0.2, 0.8, 0.6, 1.0])[:, None])
    assert f"70% [{low:.0%},\u00a0{high:.0%}]" in page and "4 of 4" in page


def test_other_appearances_get_a_table_where_there_are_some(runs):
    folder = runs[0][1].parent
    for (_, run), dim in zip(runs[:4], (0, 4, 5, 9), strict=True):
        (path,) = run.glob("evaluations/online_00000600_*/evaluation.json")
        look = {"success_once": dim / 10, "episodes": 10, "interval": [0.0, 1.0]}
        path.write_text(json.dumps(json.loads(path.read_text()) | {"others": {"dim_light": look}}))
    write_comparison(folder, runs)
    text = Page((folder / "report.html").read_text()).text
    low, high = stratified_bootstrap(np.array([0, 0.4, 0.5, 0.9])[:, None])
    assert "Online, as isOnline, dim light" in text
    assert f"45% [{low:.0%},\u00a0{high:.0%}]" in text  # the middle two of four seeds
    assert "Offline, as is" not in text  # there is one look alone
    told = json.loads((folder / "runs.json").read_text())
    assert told[1]["other_appearances"] == {"online": {"dim_light": 0.4}}
    assert "other_appearances" not in told[4]


def test_a_task_of_several_parts_is_told_by_the_share_that_was_done(runs, tmp_path):
    kitchen = {"name": "kitchen", "dense": True, "kwargs": {"tasks_to_complete": ["kettle", "microwave"]}}
    for _, path in runs[:2]:
        given = yaml.safe_load((path / "config.yaml").read_text())
        (path / "config.yaml").write_text(yaml.safe_dump(given | {"task": kitchen}))
        for file in path.glob("evaluations/*/evaluation.json"):
            record = json.loads(file.read_text())
            file.write_text(json.dumps(record | {"score": 2 * record["success_once"] + 0.1}))
    found = write_runs(tmp_path, runs[:3])
    first, _, third = json.loads((tmp_path / "runs.json").read_text())
    assert first["scores"] == pytest.approx([2 * row[2] + 0.1 for row in first["evaluations"]])
    assert (first["offline"], first["online"]) == pytest.approx((0.65, 0.25))
    assert "scores" not in third and third["offline"] == 0.6
    _, run = found[0]
    assert run.dip == pytest.approx(0.1) and run.measure == "tasks done"
    assert run.regret == pytest.approx(1 - 0.05 - (0.5 + 0.7 + 0.8 + 0.8 + 0.9 + 0.2) / 6)
    variant = Variant("agent=calql", (run, found[1][1]), 2)
    told = summary([variant])
    assert told.startswith("agent=calql ends at 55%") and "] of the tasks. " in told
    axes = draw(contrast.success, [variant]).axes
    assert axes[0].get_ylabel() == "tasks done"
    np.testing.assert_allclose(draw(plots.learning_curve, run).axes[0].lines[0].get_ydata(), [0.65])
    text = Page(write_report(run.folder).read_text()).text
    assert "Offline tasks done" in text and "Tasks done1.30 of 20.50 of 2" in text.replace("\n", "")
    assert "1.30 of 2 tasks (all of them in 60% of 10 episodes" in text


def test_what_is_not_finished_is_shown_and_not_counted(written):
    found = rows(written.folder)
    assert [row["seeds"] for row in found.values()] == ["4", "1", "1", "0"]
    assert float(found["agent=cql"]["online"]) == 0.9 and float(found["agent=cql"]["dip"]) == 0.5
    assert found["agent=cql"]["online_low"] == "nan"  # one seed has no interval
    assert found["agent=sac"]["online"] == "nan"
    page = Page((written.folder / "report.html").read_text())
    assert "2 of 8 runs are not finished" in page.text
    assert "seed 1 (not finished)" in page.text and "agent=sac,seed=0 (not begun)" in page.text
    # The curve has the unfinished seed too, as far as it goes.
    online = draw(contrast.success, read(written.runs)).axes[1]
    (line,) = [line for line in online.lines if line.get_label() == "agent=cql (2)"]
    np.testing.assert_allclose(line.get_xydata(), [[0, 0.8], [100, 0.25], [200, 0.45]])


def test_nothing_finished_yet(tmp_path):
    folder = tmp_path / "agent=cql,seed=0"
    make(folder, "cql", 0, 5, [4])
    write_comparison(tmp_path, [("agent=cql", folder)])
    assert "No run is finished yet" in Page((tmp_path / "report.html").read_text()).text
    assert sorted(p.name for p in (tmp_path / "plots").iterdir()) == ["q_and_return.png", "success.png"]
    empty = tmp_path / "empty"
    write_comparison(empty, [("agent=cql", tmp_path / "absent")])
    assert "No run is finished yet" in Page((empty / "report.html").read_text()).text


def test_the_verdict_in_words(written):
    said = summary(read(written.runs))
    assert said.startswith("agent=cql ends highest, at 90% success. With a single seed of some variant")
    assert (
        "After the switch agent=cql falls furthest below the offline score, by 50 percentage points." in said
    )
    assert "agent=calql has the least regret, 0.29." in said
    assert said.endswith("Cal-QL is not the best here: agent=calql comes 2. of 3.")


def one(tmp_path, agent, *ends):
    folders = [tmp_path / f"{agent}{seed}" for seed in range(len(ends))]
    for seed, (folder, end) in enumerate(zip(folders, ends, strict=True)):
        make(folder, agent, seed, 3, [3, 4, 4, 4, 4, end])
    return [(agent, folder) for folder in folders]


def test_the_verdict_knows_what_the_seeds_can_tell(tmp_path):
    runs = one(tmp_path, "calql", 9, 9, 10) + one(tmp_path, "cql", 8, 8, 9) + one(tmp_path, "sac", 1, 1, 2)
    said = summary(read(runs))
    assert "These seeds do not tell it apart from cql: the intervals overlap." in said
    assert "With 3 seeds an interval is little more than their range." in said
    assert "None falls below" in said and "Cal-QL is not" not in said
    assert "All others' intervals lie below." in summary(read(runs[:3] + runs[6:]))
    assert summary(read(runs[:3])).startswith("calql ends at 93% [90%,")
    twice = [("again", folder) for _, folder in runs[:3]]
    assert summary(read(runs[:3] + twice)).startswith("calql and again end at")


def test_estimates_leave_out_what_is_unknown():
    assert estimate([math.nan, 0.5, math.nan]).value == 0.5 and math.isnan(estimate([0.5]).low)
    assert math.isnan(estimate([math.nan]).value)
    assert (estimate([0.2, 0.4]).low, estimate([0.2, 0.4]).high) == pytest.approx((0.2, 0.4))


def test_the_figures_carry_the_data(written):
    variants = read(written.runs)
    follow = draw(contrast.q_and_return, variants)
    assert [ax.get_title(loc="left") for ax in follow.axes[:2]] == ["agent=calql", "agent=cql"]
    lines = {line.get_label(): line for line in follow.axes[0].lines}
    g, q = lines["return that followed"].get_ydata(), lines["Q(s, π(s))"].get_ydata()
    np.testing.assert_allclose(q - g, 2)  # so the tests' critic is off
    # Of 10 episodes, the won ones return 8 on average and the others -33.3; offline .6 are won on average.
    assert g[0] == pytest.approx(0.6 * 8 - 0.4 * 33.3) and len(g) == 7
    diagram = draw(contrast.reliability_diagram, variants)
    for line in diagram.axes[0].lines[:2]:
        np.testing.assert_allclose(line.get_ydata() - line.get_xdata(), 2)
    left = draw(contrast.time_to_go, variants).axes[1]
    assert left.lines[0].get_xdata().tolist() == [0, 1, 2, 3, 4] and left.get_xlim()[0] > left.get_xlim()[1]
    np.testing.assert_allclose(left.lines[0].get_ydata() - left.lines[1].get_ydata(), 2)
    bars = draw(contrast.bound_rate, variants).axes[0]
    assert [bar.get_width() for bar in bars.patches] == [0.5] * 4  # two variants, two phases
    assert len(draw(contrast.times, variants).axes[0].patches) == 6
    cloning = [s for s in variants if s.name == "agent=bc"]
    for figure in (
        contrast.q_and_return,
        contrast.reliability_diagram,
        contrast.time_to_go,
        contrast.bound_rate,
    ):
        assert draw(figure, cloning) is None


def test_groups_of_like_q():
    q = np.array([3.0, 1.0, 2.0, 0.0] * 5)
    x, y = by_value(q, 10 * q)
    np.testing.assert_allclose(x, [0, 0, 0.5, 1, 1, 2, 2, 2.5, 3, 3])
    np.testing.assert_allclose(y, 10 * x)


def test_the_page_stands_alone_and_leads_to_the_runs(written):
    text = (written.folder / "report.html").read_text()
    page = Page(text)
    links = [s for s in page.sources if not s.startswith("data:")]
    assert [unquote(link) for link in links] == [
        f"agent={agent},seed={seed}/report.html" for agent, seeds in VARIANTS.items() for seed in seeds
        if (agent, seed) != ("cql", 1)
    ]  # fmt: skip
    assert not re.search(r"https?:|url\(|<script|@import", text)
    assert sorted(p.name for p in (written.folder / "plots").iterdir()) == [
        "bound_rate.png", "q_and_return.png", "reliability_diagram.png", "success.png", "time_to_go.png",
        "times.png",
    ]  # fmt: skip
    assert len(page.sources) - len(links) == 6 + 2 and "agent=calql, seed 0" in page.text
    assert "agent.precision = bfloat16, published float32" in page.text and "(all variants)" in page.text
    assert "agent.actor_lr = <only>, published 0.0001 (Adam) (agent=cql)" in page.text
    assert "each variant uses between 1 and 2 tuned choices" in page.text and "seeds 0, 1, 2, 3" in page.text
    assert "do not all have the same" not in page.text


def test_runs_that_do_not_compare_are_said_to(runs, tmp_path):
    config(
        runs[0][1], agent={"name": "calql"}, online={"env_steps": STEPS}, task={"name": "lift", "horizon": 3}
    )
    write_comparison(tmp_path, runs)
    page = Page((tmp_path / "report.html").read_text())
    assert "do not all have the same configuration of: task." in page.text
    assert "task lift" in page.text and "Nothing: agent=calql." in page.text


def test_a_large_video_is_linked(runs, tmp_path, monkeypatch):
    monkeypatch.setattr("caliper.analysis.comparison.LARGEST_VIDEO", 10)
    write_comparison(tmp_path, runs)
    links = [unquote(s) for s in Page((tmp_path / "report.html").read_text()).sources if ".mp4" in s]
    assert links == [f"agent={agent},seed=0/videos/rollouts.mp4" for agent in ("calql", "cql")]


def test_report_writes_it_again(runs, tmp_path, capsys):
    write_comparison(tmp_path, runs)
    (tmp_path / "report.html").unlink()
    main(["report", str(tmp_path)])
    assert f"report: {tmp_path / 'report.html'}" in capsys.readouterr().out
    page = Page((tmp_path / "report.html").read_text())
    assert "agent=calql" in page.text and "1 of 7 runs are not finished" in page.text
    with pytest.raises(SystemExit):
        main(["report", str(tmp_path), "more"])
    assert "takes the run folder alone, without 'more'" in capsys.readouterr().err


def test_many_variants_have_styles_of_their_own(written):
    (first, *_) = read(written.runs)
    variants = [Variant(f"variant {i}", first.runs, 4) for i in range(13)]
    lines = [line for line in draw(contrast.success, variants).axes[1].lines if line.get_label()[0] == "v"]
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 13


def test_a_browser_shows_all_of_it(written, tmp_path):
    with Browser(tmp_path / "profile") as browser:
        for width in (1280, 390):
            browser.open(written.folder / "report.html", width)
            images = browser.ask("[...document.images].map(i => i.complete && i.naturalWidth)")
            assert len(images) == 6 and min(images) > 300
            browser.ask("Promise.all([...document.querySelectorAll('video')].map(v => v.play()))")
            videos = browser.ask(
                "[...document.querySelectorAll('video')].map(v => [v.readyState, v.duration, v.videoWidth])"
            )
            assert videos == [[pytest.approx(4, abs=2), pytest.approx(0.6, abs=0.1), 64]] * 2
            # against the number: a phone's innerWidth grows with what overflows
            assert browser.ask("document.documentElement.scrollWidth") <= width
            # what is wider than the page scrolls in a frame of its own
            outside = (
                "[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll, pre')"
                f" && e.getBoundingClientRect().right > {width + 1}).map(e => e.outerHTML.slice(0, 80))"
            )
            assert browser.ask(outside) == []
        assert browser.problems == []
        browser.ask("console.error('seen')")
        browser.ask("0")
        assert len(browser.problems) == 1  # so that silence means something


def test_only_what_lies_in_a_sweep_is_a_run_of_it(tmp_path):
    sweep = tmp_path / "sweep"
    for run in (sweep / "seed=0", tmp_path / "private"):
        run.mkdir(parents=True)
        (run / "config.yaml").write_text("seed: 0\n")
    (sweep / "seed=1").symlink_to(tmp_path / "private")
    (sweep / "runs.csv").write_text("variant,run\nall,seed=0\n")
    assert runs_of(sweep) == [("all", sweep / "seed=0")]
    for run in ("seed=1", "../private", "9" * 300):
        (sweep / "runs.csv").write_text(f"variant,run\nall,{run}\n")
        with pytest.raises(CaliperError, match=r"names the run .*, which is not in this folder"):
            runs_of(sweep)
