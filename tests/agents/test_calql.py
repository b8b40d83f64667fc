"""Cal-QL is CQL with one function overridden, and nothing else."""

import torch

from caliper.agents.calql import CalQL
from caliper.agents.cql import CQL
from tests.agents.conftest import make, random_batch
from tests.agents.test_conformance import equal


def test_calql_is_one_override():
    assert {name for name in vars(CalQL) if not name.startswith("__")} == {"calibrate"}
    assert CalQL.__bases__ == (CQL,)


def test_calql_without_returns_is_cql_bit_for_bit():
    cql, calql = make("cql"), make("calql")
    for i in range(3):
        batch = random_batch(seed=i)
        batch.mc_return.fill_(-torch.inf)
        a, b = cql.update(batch), calql.update(batch)
        assert equal(a, b)
    assert equal(cql.state_dict(), calql.state_dict())


def test_cql_ignores_returns():
    first, second = make("cql"), make("cql")
    batch = random_batch()
    first.update(batch)
    batch.mc_return.fill_(99.0)
    second.update(batch)
    assert equal(first.state_dict(), second.state_dict())
