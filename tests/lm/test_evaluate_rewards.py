"""Reports on scores: numbers by pencil, scores that are calibrated by construction, and the picture."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx.lm.evaluate_rewards import draw_reliability, evaluate_rewards, even_edges, pair_temperature


def drawn(count=20_000, key=0, scale=1.0):
    """Scores of preferred and other responses, where sigmoid(scale * difference) is how probable the preference was."""
    score_key, swap_key = jax.random.split(jax.random.key(key))
    first, second = jax.random.normal(score_key, (2, count))
    swap = jax.random.bernoulli(swap_key, jax.nn.sigmoid(scale * (second - first)))
    return jnp.where(swap, second, first), jnp.where(swap, first, second)


def test_by_pencil():
    """Four of five and a half: right, right, wrong, equal, right; the shorter one is right in 3 of 5."""
    chosen, rejected = jnp.array([1.0, 2.0, 0.0, 1.0, 5.0]), jnp.array([0.0, 1.5, 3.0, 1.0, 1.0])
    lengths = jnp.array([3, 4, 9, 8, 1]), jnp.array([5, 6, 2, 1, 7])
    report = evaluate_rewards(chosen, rejected, *lengths, bins=2)
    assert report.count == 5
    np.testing.assert_allclose(report.accuracy, 0.7, rtol=1e-6)
    np.testing.assert_allclose(report.length_accuracy, 0.6, rtol=1e-6)
    low, high = report.interval
    assert 0.25 < low < 0.7 < high < 0.95
    np.testing.assert_array_equal(report.by_margin.count, [2, 3])  # of |1|, 0.5, 3, 0, 4: below the median of 1 or not
    np.testing.assert_allclose(report.by_margin.mean, [0.75, 2 / 3], rtol=1e-6)
    np.testing.assert_array_equal(report.by_length.count, [1, 4])  # differences -2, -2, 7, 7, -6: the median is -2
    np.testing.assert_allclose(report.by_length.mean[0], 1.0)
    np.testing.assert_allclose(report.by_length.position, [-6.0, 2.5], rtol=1e-6)


def test_scores_calibrated_by_construction():
    chosen, rejected = drawn()
    none = jnp.zeros(len(chosen), jnp.int32)
    report = evaluate_rewards(chosen, rejected, none, none)
    assert report.calibration_error < 0.015
    assert report.length_accuracy == 0.5
    assert report.interval[0] < report.accuracy < report.interval[1]
    np.testing.assert_allclose(report.recalibrated, report.reliability)
    rising = np.asarray(report.by_margin.mean)
    assert np.all(np.diff(rising) > -0.02)
    assert rising[-1] - rising[0] > 0.3
    np.testing.assert_allclose(report.by_margin.count, 2000, atol=2)


def test_one_temperature_mends_scores_that_are_too_sure():
    """Differences three times too large: temperature 3 on other comparisons, and the accuracy stays."""
    sure = [3.0 * scores for scores in drawn()]
    found = pair_temperature(*(3.0 * scores for scores in drawn(key=1)))
    np.testing.assert_allclose(found, 3.0, rtol=0.05)
    none = jnp.zeros(len(sure[0]), jnp.int32)
    report = evaluate_rewards(*sure, none, none, temperature=found)
    assert report.calibration_error > 0.1
    assert report.recalibrated_error < 0.015
    each = evaluate_rewards(*sure, none, none, temperature=jnp.full(len(none), found))  # one each: of folds
    np.testing.assert_allclose(each.recalibrated_error, report.recalibrated_error, rtol=1e-5)
    assert report.accuracy == evaluate_rewards(*drawn(), none, none).accuracy


def test_edges_hold_as_many_and_fewer_where_values_are_equal():
    np.testing.assert_allclose(even_edges(jnp.array([3.0, 1.0, 2.0, 4.0, 5.0]), 2), [1.0, 3.0, 5.0])
    np.testing.assert_allclose(even_edges(jnp.array([0.0, 0.0, 0.0, 1.0]), 4), [0.0, 0.25, 1.0])
    np.testing.assert_allclose(even_edges(jnp.zeros(3), 5), [0.0, 0.0])


def test_refuses():
    nothing, one = jnp.zeros(0), jnp.zeros(1)
    with pytest.raises(ValueError, match="evaluate_rewards of 0 comparisons in 10 bins"):
        evaluate_rewards(nothing, nothing, nothing, nothing)
    with pytest.raises(ValueError, match="of 1 comparisons in 1 bins"):
        evaluate_rewards(one, one, one, one, bins=1)


def test_the_picture(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    chosen, rejected = drawn(200)
    report = evaluate_rewards(chosen, rejected, jnp.zeros(200), jnp.ones(200), temperature=2.0)
    draw_reliability(tmp_path / "reliability.png", report, "200 comparisons")
    assert (tmp_path / "reliability.png").stat().st_size > 10_000
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"needs matplotlib: pip install 'rlx\[plot\]'"):
        draw_reliability(tmp_path / "other.png", report)
