import os

import pytest

from caliper import machine


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("250000 100000", 2), ("50000 100000", 1), ("1600000 100000", 8), ("max 100000", 8), ("", 8), (None, 8)],
)
def test_cores_are_those_bound_to_within_the_quota_of_the_container(tmp_path, monkeypatch, quota, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(machine, "QUOTA", tmp_path / "cpu.max")
    if quota is not None:
        machine.QUOTA.write_text(quota)
    assert machine.cores() == cores


def test_cores_are_all_where_none_can_be_bound_to(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    monkeypatch.setattr(machine, "QUOTA", tmp_path / "none")
    assert machine.cores() == 3
