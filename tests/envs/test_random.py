"""Counter-based random numbers."""

import math

import torch

from caliper.envs.seeding import normal, uniform

MASK = (1 << 64) - 1


def splitmix(x):
    """SplitMix64's finaliser on Python integers."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def by_hand(seed, index, stream):
    gamma = 0x9E3779B97F4A7C15
    key = splitmix((seed * gamma + stream) & MASK)
    return (splitmix((key + (index + 1) * gamma) & MASK) >> 11) * 2.0**-53


def test_equals_splitmix_on_integers():
    seeds = [0, 1, 2**40 + 3, -5, 2**63 - 1]
    drawn = uniform(torch.tensor(seeds), 3, stream=7)
    want = [[by_hand(s, i, 7) for i in range(3)] for s in seeds]
    assert torch.equal(drawn, torch.tensor(want, dtype=torch.float64))


def test_the_numbers_stay_what_they_are():
    """Datasets and evaluations name episodes by seed: another number for a seed would be another episode."""
    drawn = uniform(torch.tensor([0, 123]), 2, stream=2)
    assert drawn.tolist() == [
        [0.25421381967191103, 0.8947232019148371],
        [0.8573194968568268, 0.010770561821610292],
    ]


def test_an_env_draws_its_own_whatever_the_company():
    alone, together = uniform(torch.tensor([9]), 5), uniform(torch.tensor([8, 9, 10]), 5)
    assert torch.equal(alone[0], together[1])
    assert torch.equal(uniform(torch.tensor([9]), 9)[:, :5], alone)
    streams = uniform(torch.tensor([9, 9]), 5, stream=torch.tensor([0, 1]))
    assert torch.equal(streams[0], alone[0]) and not torch.equal(streams[0], streams[1])


def test_uniform_over_the_unit_interval():
    """Across seeds that follow each other, across positions and across streams."""
    n = 40_000
    for numbers in (
        uniform(torch.arange(n), 1)[:, 0],
        uniform(torch.tensor([5]), n)[0],
        uniform(torch.full((n,), 5), 1, stream=torch.arange(n))[:, 0],
    ):
        assert numbers.min() >= 0 and numbers.max() < 1
        counts = torch.histc(numbers, bins=20, min=0, max=1)
        chi2 = ((counts - n / 20) ** 2 / (n / 20)).sum()
        assert chi2 < 43.8  # 19 degrees of freedom, p = 0.001
        lag = (numbers[:-1] - 0.5) * (numbers[1:] - 0.5) * 12
        assert lag.mean().abs() < 4 / math.sqrt(n)


def test_normal_has_mean_zero_and_variance_one():
    numbers = normal(torch.arange(20_000), 3)
    assert numbers.isfinite().all()
    torch.testing.assert_close(numbers.mean(0), torch.zeros(3, dtype=torch.float64), atol=0.03, rtol=0)
    torch.testing.assert_close(torch.cov(numbers.T), torch.eye(3, dtype=torch.float64), atol=0.04, rtol=0)
    assert abs(float((numbers**4).mean()) - 3) < 0.2
