import pytest
import torch

from caliper.data.returns import RewardConfig, mc_returns
from caliper.errors import CaliperError


@pytest.mark.parametrize(
    ("rewards", "terminals", "sparse", "r_neg", "expected"),
    [
        # sparse, nothing but the negative reward: r_neg / (1 - .99) everywhere
        ([-1, -1, -1], [0, 0, 0], True, -1, [-100, -100, -100]),
        ([-5, -5], [0, 0], True, -5, [-500, -500]),
        # 10; -1 + .99 * 10 = 8.9; -1 + .99 * 8.9 = 7.811
        ([-1, -1, 10], [0, 0, 1], True, -1, [7.811, 8.9, 10]),
        # not sparse: -1; -1 - .99 = -1.99; -1 + .99 * -1.99 = -2.9701
        ([-1, -1, -1], [0, 0, 0], False, -1, [-2.9701, -1.99, -1]),
        # sparse, some success, then cut by the horizon: the finite sum, no bootstrap.
        # -1; 10 - .99 = 9.01; -1 + .99 * 9.01 = 7.9199
        ([-1, 10, -1], [0, 0, 0], True, -1, [7.9199, 9.01, -1]),
        # a terminal inside stops the sum: 10, not 10 - .99
        ([-1, 10, -1], [0, 1, 0], True, -1, [8.9, 10, -1]),
    ],
)
def test_hand_values(rewards, terminals, sparse, r_neg, expected):
    returns = mc_returns(torch.tensor(rewards).float(), torch.tensor(terminals).float(), 0.99, sparse, r_neg)
    torch.testing.assert_close(returns, torch.tensor(expected).float())


def test_scaling_gives_minus_one_and_ten():
    config = RewardConfig(gamma=0.9)
    assert config.apply(torch.tensor([0.0, 1.0])).tolist() == [-1, 10]


def test_sparse_rule_holds_for_a_bias_that_float32_rounds():
    config = RewardConfig(scale=1.0, bias=-0.1, gamma=0.5)
    rewards = config.apply(torch.zeros(4))
    torch.testing.assert_close(config.returns(rewards, torch.zeros(4)), torch.full((4,), -0.2))


def test_discount_of_one_is_refused():
    with pytest.raises(CaliperError, match=r"gamma is 1.*agent.discount"):
        RewardConfig(gamma=1)
