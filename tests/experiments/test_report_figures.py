"""Figures of the overoptimisation laboratory: which are made, and what is drawn where."""

import copy
import math
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from synthetic_result import FIGURES, synthetic_result

from rlx.experiments.overoptimization.figures import pictures, study_cells, write_figures
from rlx.experiments.overoptimization.looks import legible, looks
from rlx.experiments.overoptimization.panels import draw_fit, kl_axis, rival_value
from rlx.experiments.overoptimization.values import Interval, inner_peak, kl, law, peak_and_end, show, show_interval


@pytest.fixture(scope="module")
def result():
    return synthetic_result()


def test_listing_figures_draws_none(result, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert [picture.name for picture in pictures(result)] == FIGURES


def test_figures_are_the_same_files_each_time(result, tmp_path):
    only = result | {"worlds": result["worlds"][:1], "studies": result["studies"][2:], "trends": []}
    for name in ("a", "b"):
        write_figures(only, tmp_path / name)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_many_worlds_are_several_figures(result):
    worlds = [result["worlds"][0] | {"name": f"world {index}"} for index in range(5)]
    names = [picture.name for picture in pictures(result | {"worlds": worlds})]
    assert [name for name in names if name.startswith("study-size")] == [f"study-size-{i}" for i in (1, 2, 3)]


def test_a_grid_of_sizes_and_data_has_a_panel_for_each_number_of_comparisons(result):
    world, study = copy.deepcopy(result["worlds"][0]), dict(result["studies"][0])
    arms = [
        copy.deepcopy(world["arms"][0]) | {"name": f"{w} {m}", "label": f"w{w} m{m}"}
        for w in (8, 16, 64)
        for m in range(4)
    ]
    for arm in arms:
        w, m = arm["name"].split()
        arm["proxy"] |= {"parameters": int(w), "comparisons": 1000 * (int(m) + 1)}
    world["arms"], study["arms"] = arms, [arm["name"] for arm in arms]
    cells = study_cells([world], study)
    assert [title for title, _ in cells] == [f"best-of-n, {m},000 comparisons\nworld 0" for m in (1, 2, 3, 4)]
    assert {tuple(arm["label"] for arm in group) for _, group in cells} == {
        ("8 parameters", "16 parameters", "64 parameters")
    }


def test_optimizers_of_one_arm_share_a_panel_where_labels_tell_them_apart(result):
    world, study = result["worlds"][0], dict(result["studies"][0], arms=["best_of_n-w132", "ppo-w564"])
    assert [(title, len(group)) for title, group in study_cells([world], study)] == [("world 0", 2)]
    study["arms"][1] = "ppo-w132"
    assert [title for title, _ in study_cells([world], study)] == ["best-of-n, world 0", "PPO, world 0"]


def test_laws_by_hand():
    fit = {"alpha": {"mean": 1.0}, "beta": {"mean": 0.25}}
    d = np.array([1.0, 2.0, math.e])
    np.testing.assert_allclose(law(fit | {"law": "best_of_n"}, d), [0.75, 1.0, math.e * (1 - 0.25 * math.e)])
    np.testing.assert_allclose(law(fit | {"law": "rl"}, d)[[0, 2]], [1.0, 0.75 * math.e])


def test_a_fit_is_drawn_over_its_window(result):
    arm = result["worlds"][0]["arms"][0]
    axes = Figure().subplots()
    draw_fit(axes, arm)
    fitted, peak = axes.lines
    np.testing.assert_allclose(fitted.get_xdata()[[0, -1]], arm["fit"]["window"])
    np.testing.assert_allclose(fitted.get_ydata(), law(arm["fit"], fitted.get_xdata()))
    assert peak.get_xdata() == arm["fit"]["located_peak_d"]["mean"]


def test_a_peak_at_the_end_is_none(result):
    arm = copy.deepcopy(result["worlds"][0]["arms"][0])
    assert inner_peak(arm).mean == arm["fit"]["located_peak_d"]["mean"]
    arm["fit"]["located_peak_d"]["mean"] = arm["curve"]["d"][-1]
    assert math.isnan(inner_peak(arm).mean)


def test_kl_axis_is_in_kl_and_spaced_by_its_root():
    axes = Figure().subplots()
    kl_axis(axes, 4.3)
    labels = [float(label.get_text()) for label in axes.get_xticklabels()]
    np.testing.assert_allclose(axes.get_xticks(), np.sqrt(labels))
    assert labels[:4] == [0, 0.5, 2, 4]
    assert labels[-1] > 14
    for largest in (0.01, 0.3, 1.0, 2.83, 9.7, 30.0):
        kl_axis(axes, largest)
        assert 4 <= len(axes.get_xticks()) <= 11


def test_colours_go_from_small_to_large(result):
    arms = {arm["name"]: arm for arm in result["worlds"][0]["arms"]}
    sizes = [arms[name] for name in reversed(result["studies"][0]["arms"])]
    labels = list(looks(sizes))
    assert labels[0] == "132 parameters"
    assert labels[-1] == "152,000 parameters"
    assert looks(sizes)["132 parameters"].color == matplotlib.colormaps["viridis"](0.0)
    assert len({look.marker for look in looks(sizes).values()}) == 5
    mixed = looks([arms["ppo-w132"], arms["dpo"]])
    assert mixed["DPO, beta 0.1"].color == "#D55E00"


def test_rivals_by_hand():
    arm = {"rivals": [{"law": "a", "aic": -5.0, "extrapolation_rmse": 0.2}]}
    arm["rivals"] += [{"law": "b", "aic": -2.0, "extrapolation_rmse": None}]
    assert [rival_value(arm, name, "aic") for name in "ab"] == [0, 3]
    assert rival_value(arm, "a", "extrapolation_rmse") == 0.2
    assert math.isnan(rival_value(arm, "b", "extrapolation_rmse"))
    assert math.isnan(rival_value(arm, "c", "aic"))


def test_numbers_in_words():
    assert show(None) == show(math.nan) == show(math.inf) == "\N{EN DASH}"
    assert show(-1.234) == "\N{MINUS SIGN}1.23"
    assert show(-0.001) == "0.00"
    assert show(152_000) == "152,000"
    assert show_interval(Interval(1.0, 0.5, 1.5), 1) == "1.0 [0.5, 1.5]"
    assert show_interval(Interval(1.0, math.nan, math.nan), 1) == "1.0"
    assert kl(Interval(2, 1, 3)) == (4, 1, 9)


def test_peak_and_end_by_hand():
    curve = {"d": [0.0, 1.0, 2.0, 3.0], "gold": {"mean": [0.0, 0.7, 0.5, None]}}
    assert peak_and_end({"curve": curve}) == (1.0, 0.7, 0.5)
    assert np.isnan(peak_and_end({"curve": {"d": [], "gold": None}})).all()


def test_labels_mean_nothing_to_matplotlib():
    assert legible("_hidden") == "“_hidden”"
    assert legible(r"$\frac{$") == r"\$\frac{\$"
    assert len(legible("x" * 99)) < 50
