"""The laws: known coefficients come back, peaks are where the curve is greatest, the law that made a curve wins."""

import numpy as np
import pytest

from rlx.experiments.gao import GAO
from rlx.experiments.goodhart import AnalyticWorld
from rlx.experiments.laws import (
    BEST_OF_N,
    LAWS,
    LINEAR,
    LOG1P,
    POWER,
    RL,
    Fit,
    extrapolate,
    fit,
    peak,
    predict,
    shared_alpha,
)

D = np.linspace(0.3, 5.0, 60)
NAMES = [law.name for law in LAWS]


def made(law, alpha, beta, gamma=None, d=D):
    """A curve of the law, written out by hand: `predict` has to agree."""
    alpha, beta = np.asarray(alpha)[..., None], np.asarray(beta)[..., None]
    return {
        "best of n": lambda: d * (alpha - beta * d),
        "RL": lambda: d * (alpha - beta * np.log(d)),
        "log1p": lambda: d * (alpha - beta * np.log(1 + d)),
        "power": lambda: d * (alpha - beta * d ** np.asarray(gamma)[..., None]),
        "linear": lambda: d * alpha,
    }[law.name]()


def gamma_of(law):
    return 0.5 if law.gammas else None


def test_fits_by_pencil():
    """Through (1, 1) and (2, 0): 2 d - d^2. Through (1, 1), (e, 0): alpha = 1, beta = 1. A line: sum d R / sum d^2."""
    found = fit(BEST_OF_N, [1.0, 2.0], [1.0, 0.0])
    np.testing.assert_allclose([found.alpha, found.beta, found.rms], [2, 1, 0], atol=1e-12)
    assert (peak(BEST_OF_N, found).d, peak(BEST_OF_N, found).gold) == pytest.approx((1, 1))
    found = fit(RL, [1.0, np.e], [1.0, 0.0])
    np.testing.assert_allclose([found.alpha, found.beta], [1, 1], atol=1e-12)
    assert (peak(RL, found).d, peak(RL, found).gold) == pytest.approx((1, 1))
    found = fit(LINEAR, [1.0, 2.0], [1.0, 0.0])
    # Residuals 0.8 and -0.4; variance about the mean of 1/2: 0.5.
    np.testing.assert_allclose([found.alpha, found.beta, found.rms**2, found.r2], [0.2, 0, 0.4, 1 - 0.8 / 0.5])
    assert found.aic == pytest.approx(2 * np.log(0.4) + 2 * 2)


@pytest.mark.parametrize("law", LAWS, ids=NAMES)
def test_known_coefficients_come_back(law):
    alpha, beta = np.array([0.5, 1.2, 2.0]), np.array([0.1, 0.4, 0.7]) * (law is not LINEAR)
    gamma = np.array([0.3, 1.0, 2.0]) if law.gammas else None
    curve = made(law, alpha, beta, gamma)
    exact = fit(law, D, curve)
    tight = {"rtol": 1e-3} if law.gammas else {"rtol": 1e-9, "atol": 1e-12}
    np.testing.assert_allclose(exact.alpha, alpha, **tight)
    np.testing.assert_allclose(exact.beta, beta, **tight)
    np.testing.assert_allclose(predict(law, exact, D), curve, atol=1e-4 if law.gammas else 1e-12)
    np.testing.assert_allclose(exact.r2, 1.0, atol=1e-7)
    if law.gammas:
        np.testing.assert_allclose(exact.gamma, gamma, rtol=1e-3)
    else:
        assert exact.gamma is None


@pytest.mark.parametrize("law", [BEST_OF_N, RL, LOG1P], ids=lambda law: law.name)
def test_known_coefficients_come_back_from_noisy_curves(law):
    """Within 2 percent, of 50 curves with noise of a tenth of the peak each, in the mean over curves too."""
    curve = made(law, 1.2, 0.35)
    noise = 0.1 * np.max(curve) * np.random.default_rng(0).normal(size=(50, 60))
    found = fit(law, D, curve + noise)
    assert found.alpha.shape == (50,)
    np.testing.assert_allclose([found.alpha.mean(), found.beta.mean()], [1.2, 0.35], rtol=0.02)
    of_mean = fit(law, D, curve + noise.mean(0))
    np.testing.assert_allclose([of_mean.alpha, of_mean.beta], [1.2, 0.35], rtol=0.02)
    np.testing.assert_allclose(found.rms.mean(), 0.1 * np.max(curve), rtol=0.05)


def test_curves_fitted_together_are_those_fitted_alone():
    """Distances, rewards and weights of their own each; against numpy's least squares."""
    rng = np.random.default_rng(1)
    d, gold, weight = rng.uniform(0.1, 4, (2, 3, 9)), rng.normal(size=(2, 3, 9)), rng.uniform(0.5, 2, (3, 9))
    together = fit(RL, d, gold, weight)
    for i, j in np.ndindex(2, 3):
        root = np.sqrt(weight[j])
        design = np.column_stack([d[i, j], -d[i, j] * np.log(d[i, j])])
        expected = np.linalg.lstsq(root[:, None] * design, root * gold[i, j], rcond=None)[0]
        np.testing.assert_allclose([together.alpha[i, j], together.beta[i, j]], expected, rtol=1e-9)
        alone = fit(RL, d[i, j], gold[i, j], weight[j])
        np.testing.assert_allclose(alone[3:], [x[i, j] for x in together[3:]], rtol=1e-12)


def test_points_without_weight_are_not_there():
    gold = np.where(D < 2, made(RL, 1.0, 0.3), np.nan)
    left_out, cut = fit(RL, D, gold, D < 2), fit(RL, D[D < 2], gold[D < 2])
    np.testing.assert_allclose([left_out.alpha, left_out.beta], [1.0, 0.3], rtol=1e-9)
    noisy = gold + np.random.default_rng(0).normal(size=60)
    left_out, cut = fit(RL, D, noisy, 7.0 * (D < 2)), fit(RL, D[D < 2], noisy[D < 2])
    np.testing.assert_allclose([x for x in left_out if x is not None], [x for x in cut if x is not None], rtol=1e-9)


def test_the_origin_is_a_point_like_others():
    for law in LAWS:
        d = np.append(0.0, D)
        found = fit(law, d, made(law, 1.0, 0.2, gamma_of(law), np.append(1e-300, D)))
        assert found.alpha == pytest.approx(1.0, rel=2e-3)
        assert predict(law, found, [0.0]) == 0.0


@pytest.mark.parametrize("law", [BEST_OF_N, RL, LOG1P, POWER], ids=lambda law: law.name)
def test_peaks_are_where_the_curve_is_greatest(law):
    alpha, beta = np.array([0.5, 0.9, 0.35]), np.array([0.4, 0.3, 0.15])
    gamma = np.array([0.8, 1.5, 0.6]) if law.gammas else None
    found = law.peak(alpha, beta, gamma)
    d = np.linspace(1e-6, 30.0, 300_001)
    for index in range(3):
        curve = made(law, alpha[index], beta[index], gamma[index] if law.gammas else None, d)
        np.testing.assert_allclose(found.d[index], d[np.argmax(curve)], atol=2e-4)
        np.testing.assert_allclose(found.gold[index], np.max(curve), rtol=1e-6)


def test_peaks_at_their_limits():
    """What never bends down has its peak at infinity, what falls from the start at 0; RL's slope at 0 is infinite."""
    gamma = np.array(0.5)
    for law in LAWS:
        for beta in (0.0, -0.1):
            assert law.peak(1.0, beta, gamma) == (np.inf, np.inf)
    for law in (BEST_OF_N, LOG1P, POWER):
        assert law.peak(-1.0, 0.5, gamma) == (0, 0)
    assert LINEAR.peak(-1.0, 0.0, None) == (0, 0)
    found = RL.peak(-1.0, 0.5, None)
    assert (found.d, found.gold) == pytest.approx((np.exp(-3), 0.5 * np.exp(-3)))
    assert RL.peak(1000.0, 0.5, None).d == np.inf  # beyond float64


@pytest.mark.parametrize("law", [BEST_OF_N, RL, LOG1P], ids=lambda law: law.name)
def test_aic_prefers_the_law_that_made_the_curve(law):
    rng = np.random.default_rng(2)
    curves = made(law, 1.2, 0.35) + 0.02 * rng.normal(size=(100, 60))
    aic = {other.name: fit(other, D, curves).aic for other in LAWS}
    others = np.array([aic[other.name] for other in LAWS if other not in (law, POWER)])
    assert np.mean(aic[law.name] < others.min(0)) > 0.98
    if law is BEST_OF_N:  # a case of the power law: a parameter more is not worth its price, mostly
        assert np.mean(aic[law.name] < aic[POWER.name]) > 0.75


def test_a_line_needs_no_second_coefficient():
    curves = made(LINEAR, 1.0, 0.0) + 0.1 * np.random.default_rng(3).normal(size=(200, 60))
    better = fit(LINEAR, D, curves).aic < fit(BEST_OF_N, D, curves).aic
    assert 0.75 < np.mean(better) < 0.95  # chi^2 of one degree is below 2 in 84 percent


def test_extrapolation_by_the_right_law_and_a_wrong_one():
    curve = made(BEST_OF_N, [1.2, 0.8], [0.2, 0.15])
    right, wrong = (extrapolate(law, D, curve, 2.5) for law in (BEST_OF_N, LINEAR))
    np.testing.assert_allclose(right.prediction, curve, atol=1e-10)
    np.testing.assert_allclose(right.rms, 0.0, atol=1e-10)
    np.testing.assert_array_equal(right.beyond[0], D >= 2.5)
    known = fit(LINEAR, D[D < 2.5], curve[:, D < 2.5])
    expected = np.sqrt(np.mean((known.alpha[:, None] * D[D >= 2.5] - curve[:, D >= 2.5]) ** 2, axis=1))
    np.testing.assert_allclose(wrong.rms, expected)
    assert np.all(wrong.rms > 0.5)


def test_appendix_b_of_the_paper_in_one_world():
    """A curve of RL's form, seen to its peak: the log1p form that fits it extrapolates worse."""
    d = np.linspace(0.05, 8, 100)
    curve = made(RL, 0.5, 0.3, d=d) + 0.002 * np.random.default_rng(0).normal(size=(20, 100))
    log, log1p = (extrapolate(law, d, curve, 2.0) for law in (RL, LOG1P))
    assert np.all(log1p.fit.r2 > 0.9)
    assert np.all(log.rms < 0.2 * log1p.rms)


def test_the_analytic_world_exactly():
    """K6: alpha = sqrt(2), beta = 2 c (h . w)^2 along the tilt, to the last digits; and no other law fits so."""
    world = AnalyticWorld(np.array([0.6, 0.8, 0.0]), np.array([0.5, 0.1, 0.7]), 0.6)
    path = world.tilt(np.linspace(0.0, 6.0, 40))
    found = fit(BEST_OF_N, path.d, path.gold)
    np.testing.assert_allclose([found.alpha, found.beta], [np.sqrt(2), 2 * 0.6 * 0.38**2], rtol=1e-12)
    np.testing.assert_allclose(peak(BEST_OF_N, found).d, world.alpha / (2 * world.beta), rtol=1e-12)
    assert all(found.aic + 100 < fit(law, path.d, path.gold).aic for law in LAWS if law is not BEST_OF_N)
    power = fit(POWER, path.d, path.gold)
    np.testing.assert_allclose(power.gamma, 1.0, rtol=1e-4)
    np.testing.assert_allclose(extrapolate(BEST_OF_N, path.d, path.gold, 2.0).rms, 0.0, atol=1e-12)


def test_shared_alpha():
    """Where alpha is the same the shared fit wins, by fewer parameters; where it is not, it loses."""
    rng = np.random.default_rng(4)
    d = [np.linspace(0.1, end, points) for end, points in ((3.0, 40), (5.0, 50), (6.0, 45))]
    betas = [0.3, 0.2, 0.1]
    noise = [0.01 * rng.normal(size=x.shape) for x in d]
    same = [(x, made(RL, 0.6, b, d=x) + e) for x, b, e in zip(d, betas, noise, strict=True)]
    other = [(x, made(RL, a, b, d=x) + e) for x, a, b, e in zip(d, (0.5, 0.6, 0.7), betas, noise, strict=True)]
    found = shared_alpha(RL, same)
    np.testing.assert_allclose(found.alpha, 0.6, rtol=0.02)
    np.testing.assert_allclose(found.beta, betas, rtol=0.05)
    np.testing.assert_allclose(found.rms, 0.01, rtol=0.15)
    assert found.aic < found.free_aic
    assert found.free.alpha.shape == (3,)
    np.testing.assert_allclose(found.free.alpha[1], fit(RL, *same[1]).alpha)
    apart = shared_alpha(RL, other)
    assert apart.free_aic < apart.aic
    one = shared_alpha(RL, same[:1])  # nothing is shared
    np.testing.assert_allclose([one.alpha, one.beta[0], one.aic], [one.free.alpha[0], one.free.beta[0], one.free_aic])


def test_what_cannot_be_fitted():
    with pytest.raises(ValueError, match="is negative"):
        fit(RL, [-0.1, 1.0], [0.0, 1.0])
    with pytest.raises(ValueError, match="1 points for 2 parameters"):
        fit(RL, [1.0], [0.0])
    with pytest.raises(ValueError, match="no point at d = 9"):
        extrapolate(RL, D, D, 9)
    with pytest.raises(ValueError, match="0 points for 2"):
        extrapolate(RL, D, D, 0.1)
    with pytest.raises(ValueError, match="not power"):
        shared_alpha(POWER, [(D, D)])


def test_the_coefficients_of_the_paper():
    """Signs and slopes per decade of the digitised figure, and peaks beside what figure 1 shows: .50, .55, .69, .87."""
    decades = np.log10(GAO.parameters / 3e6)
    lines = [np.polyfit(decades, y, 1) for y in (GAO.alpha_bon, GAO.beta_bon, GAO.beta_rl)]
    np.testing.assert_allclose(lines, [[0.065, 0.49], [-0.0108, 0.123], [-0.021, 0.173]], rtol=0.03)
    none = np.zeros(9)
    peaks = peak(BEST_OF_N, Fit(GAO.alpha_bon, GAO.beta_bon, None, none, none, none))
    np.testing.assert_allclose(peaks.gold[:5], [0.50, 0.55, 0.69, 0.69, 0.87], rtol=0.03)
    assert np.all(peaks.d[5:] ** 2 > 10)  # from 300M on gold still rises at a KL of 10
