import pytest

from caliper.data.mixing import MixedSampler
from caliper.errors import CaliperError
from tests.data.conftest import add, make_buffer, numbers


def sampler(ratio: float, online: bool = True) -> MixedSampler:
    """Offline frames are numbered below 1000 (30 transitions), online ones from 1000 on (10)."""
    buffers = make_buffer(), make_buffer()
    for i in range(3):
        add(buffers[0], 100 * i, 10)
    if online:
        add(buffers[1], 1000, 10)
    return MixedSampler(*buffers, ratio)


@pytest.mark.parametrize(
    ("ratio", "offline"),
    # int(33 * .5) = 16 as in the official code; below 0: 30 of 40 transitions are offline, int(33 * .75) = 24
    [(0.5, 16), (0.0, 0), (1.0, 33), (0.25, 8), (-1.0, 24)],
)
def test_proportion(ratio, offline, generator):
    batch = sampler(ratio).sample(33, generator)
    assert len(batch) == 33
    at = numbers(batch.obs)
    assert (at[:offline] < 1000).all()
    assert (at[offline:] >= 1000).all()
    assert (numbers(batch.next_obs) == at + 1).all()


@pytest.mark.parametrize("ratio", [-1.0, 0.0, 0.5, 1.0])
def test_without_online_data_all_is_offline(ratio, generator):
    batch = sampler(ratio, online=False).sample(32, generator)
    assert len(batch) == 32
    assert (numbers(batch.obs) < 1000).all()


def test_without_offline_data_all_is_online(generator):
    online = make_buffer()
    add(online, 1000, 5)
    assert len(MixedSampler(make_buffer(), online, 0.5).sample(8, generator)) == 8


def test_refusals(generator):
    with pytest.raises(CaliperError, match="at most 1"):
        sampler(1.5)
    with pytest.raises(CaliperError, match="is empty"):
        MixedSampler(make_buffer(), make_buffer(), 0.5).sample(4, generator)
