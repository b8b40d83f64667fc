import os
import sys
import time

import numpy as np
import pytest
import torch

from caliper.errors import CaliperError
from caliper.training import logger as log
from caliper.training.logger import Logger, to_floats
from caliper.utils import files
from caliper.utils.metrics import LOST, lost_rows, read_metrics


def test_rows_come_back_as_columns(tmp_path):
    with Logger(tmp_path) as run:
        run.log("offline", 0, 100, {"critic/loss": torch.tensor(0.5), "n": 3})
        run.log("online", 20, 120, {"n": 4, "critic/loss": float("inf")})
    table = read_metrics(tmp_path)
    assert list(table) == ["phase", "env_steps", "updates", "wall_s", "cpu_s", "critic/loss", "n"]
    assert table["phase"].tolist() == ["offline", "online"]
    assert table["env_steps"].dtype == table["updates"].dtype == np.int64
    assert table["updates"].tolist() == [100, 120] and table["n"].tolist() == [3, 4]
    assert table["critic/loss"].tolist() == [0.5, np.inf]


def test_a_late_column_loses_no_row(tmp_path):
    with Logger(tmp_path) as run:
        run.log("offline", 0, 1, {"a": 1.0})
        run.log("offline", 0, 2, {"b": 2.0})
        run.log("offline", 0, 3, {"a": 3.0})
    table = read_metrics(tmp_path / "metrics.csv")
    np.testing.assert_array_equal(table["a"], [1, np.nan, 3])
    np.testing.assert_array_equal(table["b"], [np.nan, 2, np.nan])


def test_float32_survives_and_tensors_leave_together(monkeypatch):
    values = torch.rand(50)
    stacks = []
    stack = torch.stack
    monkeypatch.setattr(log.torch, "stack", lambda *a, **k: stacks.append(1) or stack(*a, **k))
    floats = to_floats(
        {f"m{i}": v for i, v in enumerate(values)} | {"plain": 2, "grad": torch.ones(1, requires_grad=True)}
    )
    assert len(stacks) == 1
    assert [np.float32(f"{floats[f'm{i}']:.9g}") for i in range(50)] == values.tolist()
    assert floats["plain"] == 2.0 and floats["grad"] == 1.0
    assert list(floats)[-2:] == ["plain", "grad"]


def test_common_rows_are_appended_and_synced_when_asked(tmp_path, monkeypatch):
    run = Logger(tmp_path)
    run.log("offline", 0, 1, {"a": 1.0})
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(log.os, "fsync", lambda fd: synced.append(fd) or fsync(fd))
    monkeypatch.setattr(files.os, "replace", lambda *_: pytest.fail("rewrote the file for a plain row"))
    for i in range(2, 5):
        run.log("offline", 0, i, {"a": 1.0})
        assert read_metrics(tmp_path)["updates"][-1] == i  # there when log returns
    assert len(synced) == 0
    run.sync()
    assert len(synced) == 1


def test_truncate_leaves_no_duplicates(tmp_path):
    with Logger(tmp_path) as run:
        for updates, env_steps in ((100, 0), (200, 0), (300, 50), (400, 100)):
            run.log("online" if env_steps else "offline", env_steps, updates, {"a": updates})
    with Logger(tmp_path) as run:
        assert run.rows == 4
        run.truncate(3)
        run.log("online", 100, 400, {"a": -1, "new": 1})
    table = read_metrics(tmp_path)
    assert table["updates"].tolist() == [100, 200, 300, 400]
    assert table["a"].tolist() == [100, 200, 300, -1]


def test_the_clock_goes_on_after_a_resume(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    with Logger(tmp_path) as run:
        for i in range(3):
            now[0] += 10
            run.log("offline", 0, i, {})
    now[0] = 5.0  # another process, another clock
    with Logger(tmp_path) as run:
        run.truncate(2)
        now[0] += 1
        run.log("offline", 0, 2, {})
    assert read_metrics(tmp_path)["wall_s"].tolist() == [10, 20, 21]


def test_a_torn_last_line_is_dropped(tmp_path):
    with Logger(tmp_path) as run:
        run.log("offline", 0, 1, {"a": 1.0})
        run.log("offline", 0, 2, {"a": 2.0})
    path = tmp_path / "metrics.csv"
    path.write_bytes(path.read_bytes()[:-3])
    assert read_metrics(path)["updates"].tolist() == [1]
    with Logger(tmp_path) as run:
        run.log("offline", 0, 2, {"a": 5.0})
    assert read_metrics(path)["a"].tolist() == [1, 5]


def test_names_with_commas_and_quotes(tmp_path):
    with Logger(tmp_path) as run:
        run.log("offline", 0, 1, {'a,"b"': 1.0})
    assert read_metrics(tmp_path)['a,"b"'].tolist() == [1.0]


def test_bad_files_are_one_sentence(tmp_path):
    with pytest.raises(CaliperError, match=r"metrics\.csv"):
        read_metrics(tmp_path)
    (tmp_path / "metrics.csv").write_text("x,y\n1,2\n")
    with pytest.raises(CaliperError, match="not a metrics file"):
        Logger(tmp_path)
    (tmp_path / "metrics.csv").write_text("phase,env_steps,updates,wall_s,cpu_s,a\noffline,0,1,2,2,zebra\n")
    with pytest.raises(CaliperError, match="other than numbers"):
        read_metrics(tmp_path)


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    run = Logger(tmp_path)
    run.log("offline", 0, 1, {"a": 1.0})

    def full(_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(log.os, "fsync", full)
    with pytest.raises(CaliperError, match="No space left"):
        run.sync()
    with pytest.raises(CaliperError, match="No space left"):
        run.log("offline", 0, 2, {"b": 1.0})


def test_wandb_is_not_imported_when_disabled(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it would raise
    for settings in (None, {"mode": "disabled"}):
        with Logger(tmp_path, settings) as run:
            run.log("offline", 0, 1, {"a": 1.0})
    with pytest.raises(CaliperError, match=r"log\.wandb=disabled"):
        Logger(tmp_path, {"mode": "offline"})


def test_wandb_offline_stays_inside_the_run_folder(tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in ("WANDB_CACHE_DIR", "WANDB_ERROR_REPORTING"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "run"
    with Logger(folder, {"project": "p"}, config={"seed": 1}) as run:
        run.log("offline", 0, 1, {"a": torch.tensor(1.0)})
    assert list((folder / "wandb").glob("offline-run-*/run-*.wandb"))
    assert not list(home.rglob("*"))
    for name in ("WANDB_CACHE_DIR", "WANDB_ERROR_REPORTING"):
        os.environ.pop(name, None)


def test_lost_rows_are_counted_and_told(tmp_path):
    with Logger(tmp_path) as log:
        for update in range(6):
            log.log("offline", 0, update, {"loss": 1.0 / (1 + update)})
        mark = log.mark()
    lines = log.path.read_text().splitlines(keepends=True)
    log.path.write_text("".join(lines[:3]))  # two rows are left
    with Logger(tmp_path) as log:
        assert log.truncate(mark["rows"], mark["sha256"]) == 4
        log.log("offline", 0, 6, {LOST: 4})
    assert lost_rows(read_metrics(tmp_path)) == [(6, 4.0)]
    log.path.write_text("".join(lines).replace("0.5", "0.6"))
    with Logger(tmp_path) as log:
        assert log.truncate(mark["rows"], mark["sha256"]) == 0  # all there, and one is another
    log.path.write_text("".join(lines))
    with Logger(tmp_path) as log:
        assert log.truncate(mark["rows"], mark["sha256"]) is None


def test_tensorboard_holds_every_row_once_also_after_a_resume(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

    def shown():
        events = reader.EventAccumulator(str(tmp_path / "tensorboard"))
        events.Reload()
        return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}

    with Logger(tmp_path, tensorboard=True) as run:
        for updates in (100, 200, 300):
            run.log("offline", 0, updates, {"loss": torch.tensor(updates / 4)})
        run.log("offline", 0, 300, {"eval/success": 0.5})
    assert shown()["loss"] == [(100, 25), (200, 50), (300, 75)]
    assert shown()["eval/success"] == [(300, 0.5)] and set(shown()) == {
        *("env_steps", "cpu_s", "loss", "eval/success")
    }
    with Logger(tmp_path, tensorboard=True) as run:
        assert run.truncate(2) is None  # back to a checkpoint
        run.log("online", 8, 300, {"loss": -1.0})
    assert shown()["loss"] == [(100, 25), (200, 50), (300, -1)]
    assert shown()["env_steps"] == [(100, 0), (200, 0), (300, 8)] and "eval/success" not in shown()
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1


def test_without_tensorboard_nothing_of_it_is_imported(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # importing it would raise
    with Logger(tmp_path) as run:
        run.log("offline", 0, 1, {"a": 1.0})
    assert not (tmp_path / "tensorboard").exists()
    with pytest.raises(CaliperError, match=r"TensorBoard does not start .*log\.tensorboard=false"):
        Logger(tmp_path, tensorboard=True)
