"""How `benchmarks/state_cpu.py` finds its peer, which is not installed but cloned."""

import sys

import pytest

PEER = """
import d4rl, gym, pyrallis, wandb

def evaluate(env: gym.Env): ...

@pyrallis.wrap()
def train(config):
    return config
"""


@pytest.fixture
def script(benchmark_script):
    return benchmark_script("state_cpu")


def test_the_peer_loads_without_its_environments_and_its_log(script, tmp_path):
    (tmp_path / script.FILE).parent.mkdir(parents=True)
    (tmp_path / script.FILE).write_text(PEER)
    before = {name: sys.modules.get(name) for name in ("d4rl", "gym", "pyrallis", "wandb")}
    assert script.load_corl(tmp_path).train(3) == 3
    assert {name: sys.modules.get(name) for name in before} == before


def test_a_missing_peer_is_told_in_a_sentence(script, tmp_path, capsys):
    assert script.load_corl(None) is None
    assert "--corl FOLDER is not given: name a clone of" in capsys.readouterr().out
    assert script.load_corl(tmp_path) is None
    assert "cal_ql.py does not exist: name a clone of" in capsys.readouterr().out
