"""Studies, and what becomes of outcomes that are made of the laws themselves: claims, findings, the result."""

import dataclasses
import json

import numpy as np
import pytest

from rlx.experiments.overoptimization import lab
from rlx.experiments.overoptimization.analysis import analyse, collect
from rlx.experiments.overoptimization.arms import Outcome, save_outcome
from rlx.experiments.overoptimization.lab import LabConfig, Place, arm_file, place_folder, run_place
from rlx.experiments.overoptimization.methods import DIRECT, Curves, numbers_of
from rlx.experiments.overoptimization.presets import PRESETS, preset
from rlx.experiments.overoptimization.report import write_report
from rlx.experiments.overoptimization.results import make_result
from rlx.experiments.overoptimization.signatures import humps, signatures, spends_more
from rlx.experiments.overoptimization.studies import STUDIES
from rlx.experiments.overoptimization.world import WorldConfig

SEEDS, PROMPTS = 4, 3
GRID = dataclasses.replace(preset("tiny").grid, widths=(2, 4, 8), kl_coefs=(0.0, 0.1), rounds=(1, 2))
PLACE = Place(WorldConfig(), tuple(STUDIES), SEEDS)
CONFIG = LabConfig((PLACE,), GRID, window=(0.3, 4.0), resamples=40, smoothing=1)


def made(arm, far=5.0):
    """An outcome that the laws would give: alpha grows with size and data, one seed's curve lies above another's."""
    size = np.log2(arm.proxy.width) + 0.6 * np.log2(arm.proxy.comparisons / 64)
    one = np.linspace(-0.02, 0.02, SEEDS)[:, None, None] + np.linspace(-0.01, 0.01, PROMPTS)[:, None]
    if arm.method.name == "best_of_n":
        point = np.array(numbers_of(1024))
        d = np.sqrt(np.log(point) - 1 + 1 / point) + 0 * one
        gold = d * (0.5 + 0.1 * size + one - 0.05 * d)
        proxy = d * (1.0 + one)
    else:
        points = (11 if arm.rounds == 1 else 12) // arm.rounds
        d = np.concatenate([np.linspace(0, far, points)] * arm.rounds) + 0 * one
        gold = d * (0.4 + 0.05 * size + one - 0.35 * np.log(np.maximum(d, 1e-9)))
        proxy = d * (0.6 + one)
        point = np.arange(d.shape[-1])
    known = arm.method.name not in DIRECT and not (arm.rounds > 1 or arm.restart)
    of_seeds = np.linspace(0.7, 0.8, SEEDS) if known else np.full(SEEDS, np.nan)
    proxy = np.broadcast_to(0.5 + one, d.shape) if arm.method.name in DIRECT else proxy
    curves = Curves(point, d**2, proxy, gold, 0 * d + 9)
    return Outcome(curves, np.array(10 * arm.proxy.width if known else 0), of_seeds, of_seeds, of_seeds)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An experiment of all studies, as it lies on disk."""
    folder = tmp_path_factory.mktemp("lab")
    here = place_folder(folder, PLACE)
    here.mkdir(parents=True)
    sample = {"prompt": "ab", "response": "cd", "gold": 0.5}
    world = {"policy_parameters": 9, "policy_entropy": 1.0, "response_length": 5.0, "samples": [sample]}
    (here / "world.json").write_text(json.dumps(world))
    for arm in CONFIG.arms(PLACE):
        save_outcome(arm_file(folder, PLACE, arm), made(arm))
    return folder


@pytest.fixture(scope="module")
def found(folder):
    return collect(CONFIG, folder)[PLACE.name]


# Studies --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_an_arm_has_one_name_and_a_name_one_arm(name):
    config = preset(name)
    arms = {}
    for study in STUDIES.values():
        some = study.arms(config.grid)
        assert len({arm.name for arm in some}) == len({arm.label + arm.method.name for arm in some}) == len(some)
        for arm in some:
            assert arms.setdefault(arm.name, arm) == arm
            assert arm.method.updates // (arm.rounds * arm.method.every) > 0
            assert arm.proxy.comparisons <= min(place.world.comparisons for place in config.places)
    for place in config.places:
        order = [arm.proxy for arm in config.arms(place)]
        assert len(set(order)) == sum(a != b for a, b in zip(order, [None, *order[:-1]], strict=True))  # side by side


def test_presets_by_name():
    assert preset("direct", 3).places[0] == Place(preset("paper").places[0].world, ("direct",), 3)
    assert set(preset("paper").places[0].studies) == set(STUDIES)
    with pytest.raises(ValueError, match="'quik'"):
        preset("quik")
    with pytest.raises(ValueError, match="two worlds have one name"):
        LabConfig((PLACE, dataclasses.replace(PLACE, seeds=2)))


# Files ----------------------------------------------------------------------------------------------------------------


def test_files_are_of_their_settings(folder):
    """Not of labels; other seeds, worlds and arms are elsewhere."""
    arm = CONFIG.arms(PLACE)[0]
    file = arm_file(folder, PLACE, arm)
    assert arm_file(folder, PLACE, dataclasses.replace(arm, label="x")) == file
    others = [
        arm_file(folder, dataclasses.replace(PLACE, seeds=5), arm),
        arm_file(folder, dataclasses.replace(PLACE, world=WorldConfig(width=16)), arm),
        arm_file(folder, PLACE, dataclasses.replace(arm, proxy=dataclasses.replace(arm.proxy, flips=0.1))),
    ]
    assert len({file, *others}) == 4
    assert collect(dataclasses.replace(CONFIG, places=(dataclasses.replace(PLACE, seeds=5),)), folder) == {
        PLACE.name: {}
    }


def test_what_is_done_is_not_done_again(folder, tmp_path, monkeypatch):
    """A world is made for what is missing or broken alone; a stop comes before it."""
    asked = []
    monkeypatch.setattr(lab, "open_world", lambda *_: asked.append("world"))
    monkeypatch.setattr(
        lab, "Bench", lambda *_: type("Fake", (), {"run": lambda _, arm: asked.append(arm) or made(arm)})()
    )
    told = []
    assert run_place(CONFIG, PLACE, folder, lambda name, seconds: told.append((name, seconds)), lambda: True)
    assert told == [(arm.name, 0.0) for arm in CONFIG.arms(PLACE)]
    assert not asked
    arm = CONFIG.arms(PLACE)[3]
    file = arm_file(folder, PLACE, arm)
    file.write_bytes(file.read_bytes()[:50])
    assert not run_place(CONFIG, PLACE, folder, lambda *_: None, lambda: True)
    assert run_place(CONFIG, PLACE, folder, lambda *_: None, lambda: False)
    assert asked == ["world", arm]


# Claims ---------------------------------------------------------------------------------------------------------------


def claims(config, place, found):
    return {row["claim"]: row for row in signatures(config, place, found)}


def test_laws_come_out_where_they_are_true(found):
    rows = claims(CONFIG, PLACE, found)
    assert len(rows) == 10
    assert {row["world"] for row in rows.values()} == {PLACE.name}
    assert all(row["holds"] is True for row in rows.values()), rows
    peak = found["grpo-w2-m256"].bootstrap.top_d.value
    size = 1 + 0.6 * 2
    np.testing.assert_allclose(peak, np.exp((0.4 + 0.05 * size) / 0.35 - 1), atol=0.3)


def test_claims_that_are_false_are_said_to_be(found):
    upside = dict(found)
    for width, other in ((2, 8), (8, 2)):
        for name in ("best-of-n", "grpo"):
            arm = found[f"{name}-w{width}-m256"].arm
            upside[arm.name] = analyse(CONFIG, arm, found[f"{name}-w{other}-m256"].outcome)
    holds = {claim: row["holds"] for claim, row in claims(CONFIG, PLACE, upside).items()}
    assert holds["alpha of best-of-n is larger for the largest proxy than for the smallest"] is False
    assert holds["the peak of the gold reward grows with the proxy's size under RL"] is False
    assert holds["the proxy reward rises throughout"] is True
    arm = found["grpo-w2-m256"].arm
    cheap = made(arm)._replace(curves=made(arm).curves._replace(kl=made(arm).curves.kl * 0.01))
    pushed = analyse(dataclasses.replace(CONFIG, window=(0.01, 4.0)), arm, cheap)
    assert spends_more([found["best-of-n-w2-m256"]], [pushed])[0].holds is False
    flat = made(arm)._replace(curves=made(arm).curves._replace(gold=made(arm).curves.proxy))
    assert humps(analyse(CONFIG, arm, flat)).holds is False


def test_an_arm_that_did_not_come_far_is_not_passed_over(found):
    """The smallest has no curve: its claim is open, it counts as no fit, and ratios stay with their proxies."""
    arm = found["grpo-w2-m256"].arm
    short = analyse(CONFIG, arm, made(arm, far=0.2))
    assert short.bootstrap is None
    rows = claims(CONFIG, PLACE, found | {arm.name: short})
    assert rows["the smallest proxy's gold reward rises and then falls under RL"]["holds"] is None
    fit = rows["d(alpha - beta log d) fits RL, R^2 >= 0.95 in at least 4 of 5 sizes"]
    assert fit["holds"] is False
    assert "nan" in fit["found"]
    assert "1 more did not come" in rows["the peak of the gold reward grows with the proxy's size under RL"]["found"]
    ratios = rows["RL spends more KL than best-of-n at equal proxy reward"]["found"].split(" times")[0].split(", ")
    assert len(ratios) == 2


def test_sizes_are_spoken_of_where_sizes_are_studied(found):
    """An arm that the study of data shares is no study of sizes."""
    rows = claims(CONFIG, dataclasses.replace(PLACE, studies=("data",)), found)
    assert set(rows) == {
        "the proxy reward rises throughout",
        "the peak of the gold reward grows with the comparisons under RL",
        "the peak of the gold reward grows with the comparisons under best-of-n",
    }


def test_of_rounds_that_begin_again_the_last_one_is_analysed(found):
    again, on = found["rounds2-first"], found["rounds2-last"]
    assert again.outcome.curves.gold.shape == (SEEDS, PROMPTS, 6)
    assert again.outcome.curves.point.tolist() == list(range(6, 12))
    assert on.outcome.curves.gold.shape == (SEEDS, PROMPTS, 12)
    worse = on.outcome._replace(curves=on.outcome.curves._replace(proxy=-on.outcome.curves.proxy))
    rows = claims(CONFIG, PLACE, found | {"rounds2-last": analyse(CONFIG, on.arm, worse)})
    assert rows["the proxy reward rises throughout"]["holds"] is True  # its proxies are replaced on the way


# The result -----------------------------------------------------------------------------------------------------------


def test_the_result_has_every_study_and_is_plain(folder, tmp_path):
    told = {"preset": "none", "stages": [], "wall_s": 1.0, "versions": {}, "command": "c"}
    result = make_result(CONFIG, folder, told | {"device": "cpu", "commit": None})
    text = json.dumps(result, allow_nan=False)
    assert json.loads(text) == result
    (world,) = result["worlds"]
    assert [study["name"] for study in result["studies"]] == list(STUDIES)
    names = {arm["name"] for arm in world["arms"]}
    found = {study["name"]: study["finding"] for study in result["studies"]}
    for study in result["studies"]:
        assert set(study["arms"]) <= names
        assert study["finding"].startswith("World 0, extremal gold. Highest gold reward under")
    assert "nats a comparison: 0.750 after 128 comparisons, 0.750 after reading them 4 times" in found["data"]
    assert "KL penalty 0.1: up to d = 4.00 gold +0.00 against no penalty" in found["penalty"]
    assert "Gold reward of the last policy, 1 round:" in found["iterated"]
    assert "under direct alignment" in found["direct"]
    assert "rank correlation of 1.00" in found["direct"]
    assert all(arm["proxy"] is None for arm in world["arms"] if arm["optimizer"] in DIRECT)
    slopes = {(row["coefficient"], row["against"]): row for row in result["trends"]}
    assert slopes["alpha best-of-n", "parameters"]["slope"]["mean"] == pytest.approx(0.1 * np.log2(10), rel=1e-3)
    assert slopes["alpha best-of-n", "parameters"]["comes_out"] is True
    assert slopes["beta RL", "parameters"]["comes_out"] is False  # it is the same for all
    page = write_report(result, tmp_path).read_text()
    assert all(study["question"] in page for study in result["studies"])
