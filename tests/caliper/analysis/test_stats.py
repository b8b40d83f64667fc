import math

import numpy as np
import pytest

from caliper.analysis.stats import (
    align,
    area_under_curve,
    dip,
    interquartile_mean,
    regret,
    sign_test,
    stratified_bootstrap,
    wilson,
)


def test_wilson_against_worked_numbers():
    # 81 of 263: Newcombe 1998 (Stat. Med. 17, p. 857), table I, method 3.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


def test_wilson_is_symmetric_and_holds_the_rate():
    for n in (1, 7, 50):
        for k in range(n + 1):
            low, high = wilson(k, n)
            assert 0 <= low <= k / n <= high <= 1
            assert wilson(n - k, n) == pytest.approx((1 - high, 1 - low))
    assert wilson(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="3 successes out of 2"):
        wilson(3, 2)


def test_sign_test_counts_coin_tosses():
    assert sign_test(5, 0) == sign_test(0, 5) == 2 / 32
    assert sign_test(4, 1) == 2 * (1 + 5) / 32
    assert sign_test(3, 3) == sign_test(0, 0) == 1.0


def test_interquartile_mean_drops_the_outer_quarters():
    assert interquartile_mean([100, 1, 2, 3, 4, 5, 6, -100]) == 3.5
    assert interquartile_mean([[1, 2], [3, 100]]) == 2.5
    assert interquartile_mean([7.0]) == 7.0


def test_bootstrap_keeps_the_tasks_apart():
    # Runs differ by a constant within a task: tasks at 0 and 10, one run each way. A redraw that mixed the
    # tasks would often see only one of them and give an interval as wide as [0, 10].
    scores = np.array([[0.0, 10.0], [1.0, 11.0]])
    low, high = stratified_bootstrap(scores, lambda table: float(table.mean()))
    assert (low, high) == (5.0, 6.0)
    assert stratified_bootstrap(np.full((5, 2), 0.3)) == pytest.approx((0.3, 0.3))
    assert stratified_bootstrap(np.random.rand(6, 3), seed=1) != (0.0, 1.0)
    with pytest.raises(ValueError, match="runs, tasks"):
        stratified_bootstrap([1.0, 2.0])


def test_regret_of_equal_and_unequal_spacing():
    assert regret([1000, 2000, 3000], [0.2, 0.6, 1.0]) == pytest.approx(0.4)
    assert regret([1000, 2005, 3000], [0.2, 0.6, 1.0]) == pytest.approx(0.4)  # whole episodes overshoot
    # Trapezoids: (.0 + .5)/2 * 1 + (.5 + 1.)/2 * 3 = 2.5 over 4 steps.
    assert regret([0, 1, 4], [0.0, 0.5, 1.0]) == pytest.approx(1 - 2.5 / 4)
    assert regret([4, 0, 1], [1.0, 0.0, 0.5]) == pytest.approx(1 - 2.5 / 4)  # order does not matter
    assert regret([500], [0.75]) == 0.25
    assert math.isnan(regret([], []))


def test_the_dip_is_of_the_first_fifth_only():
    steps, success = [100, 200, 600, 1000], [0.5, 0.3, 0.0, 1.0]
    assert dip(steps, success, offline=0.7) == pytest.approx(0.4)
    assert dip(steps, success, offline=0.2) == 0.0
    assert dip(steps, success, offline=0.7, total_steps=10_000) == pytest.approx(0.7)
    assert dip(steps, success, offline=0.7, window=0.1) == pytest.approx(0.2)
    assert math.isnan(dip([800, 1000], [0.1, 0.9], offline=0.7))
    assert math.isnan(dip([], [], offline=0.7))


def test_area_under_curve_is_a_mean_height():
    assert area_under_curve([0, 1, 4], [0.0, 0.5, 1.0]) == pytest.approx(2.5 / 4)
    assert area_under_curve([3], [0.8]) == 0.8
    assert math.isnan(area_under_curve([], []))
    with pytest.raises(ValueError, match="same length"):
        area_under_curve([1, 2], [1])


def test_curves_are_aligned_where_all_of_them_are():
    lines = [np.array([[0, 0.0], [10, 1.0], [20, 0.0]]), np.array([[5, 2.0], [25, 4.0]])]
    x, y = align(lines)
    assert x.tolist() == [5, 10, 20]
    np.testing.assert_allclose(y, [[0.5, 1.0, 0.0], [2.0, 2.5, 3.5]])
    assert len(align([lines[0], np.array([[30, 1.0]])])[0]) == 0
