"""An overoptimisation result made of the laws themselves: what figures and reports are tested on.

Axes: K points of a curve, S seeds.
"""

import json
import math

import numpy as np

SIZES = {132: (0.62, 0.54), 564: (0.67, 0.40), 2_340: (0.73, 0.365), 9_540: (0.76, 0.32), 152_000: (0.78, 0.29)}
DATA = {1_000: (0.57, 0.60), 4_000: (0.60, 0.52), 12_000: (0.66, 0.42), 60_000: (0.77, 0.30)}
HOSTILE = "<script>alert('& $x$ \"')</script>"
NONE = {"mean": math.nan, "low": math.nan, "high": math.nan}
GAO = {
    "parameters": [3e6, 12e6, 25e6, 42e6, 85e6, 300e6, 680e6, 1.2e9, 3e9],
    "alpha_bon": [0.490, 0.513, 0.558, 0.548, 0.599, 0.633, 0.649, 0.653, 0.662],
    "beta_bon": [0.120, 0.120, 0.115, 0.111, 0.106, 0.0995, 0.098, 0.0965, 0.090],
    "beta_rl": [0.175, 0.167, 0.152, 0.146, 0.137, 0.124, 0.119, 0.122, 0.118],
}

FIGURES = [  # that the result has the data for, in order
    "headline",
    "study-size",
    "plane-size",
    "study-data",
    "plane-data",
    "study-direct-alignment",
    "trends-parameters",
    "trends-comparisons",
    "rivals",
    "control",
]


def around(value, spread=0.05):
    return {"mean": value, "low": value - spread, "high": value + spread}


def curves(rng, d, alpha, beta, law, seeds=5):
    """Give every seed's gold and proxy `[S, K]`: the law with a beta of its own, and a line that bends a little."""
    betas = beta * (1 + 0.12 * rng.normal(size=(seeds, 1)))
    bend = d if law == "best_of_n" else np.log(np.maximum(d, 1e-9))
    noise = 0.015 * rng.normal(size=(seeds, len(d)))
    return d * (alpha - betas * bend) + noise, 0.75 * d - 0.04 * d**2 + noise


def summary(values):
    mean, error = values.mean(0), 1.96 * values.std(0) / np.sqrt(len(values))
    return {"mean": mean.tolist(), "low": (mean - error).tolist(), "high": (mean + error).tolist()}


def arm(rng, name, label, optimizer, proxy, alpha, beta, **settings):
    """Make an arm whose fit is right by construction."""
    law = "best_of_n" if optimizer == "best_of_n" else "rl"
    n = np.unique(np.geomspace(1, 8192, 26).round())
    d = np.sqrt(np.log(n) - (n - 1) / n) if law == "best_of_n" else np.linspace(0.08, 4.3, 44)
    gold, seen = curves(rng, d, alpha, beta, law)
    peak = alpha / (2 * beta) if law == "best_of_n" else math.exp(alpha / beta - 1)
    height = alpha**2 / (4 * beta) if law == "best_of_n" else beta * peak
    top = d[gold.mean(0).argmax()]
    fit = {
        "law": law,
        "formula": "d (alpha - beta d)" if law == "best_of_n" else "d (alpha - beta log d)",
        "window": [0.3, float(d[-1])],
        "alpha": around(alpha, 0.03),
        "beta": around(beta, 0.02),
        "r2": 0.987,
        "peak_d": around(peak, 0.2),
        "peak_gold": around(height),
        "located_peak_d": around(float(top), 0.2),
        "located_peak_gold": around(float(gold.mean(0).max())),
    }
    names = [fit["formula"], "d (alpha - beta log(1 + d))", "alpha d", "d (alpha - beta d^2)"]
    return {
        "name": name,
        "label": label,
        "optimizer": optimizer,
        "proxy": proxy,
        "settings": settings,
        "seeds": 5,
        "curve": {
            "d": d.tolist(),
            "n": n.tolist() if law == "best_of_n" else None,
            "proxy": summary(seen) if proxy else None,
            "gold": summary(gold),
        },
        "runs": {"d": [d.tolist()] * 5, "proxy": seen.tolist() if proxy else None, "gold": gold.tolist()},
        "fit": fit,
        "rivals": [
            {
                "law": law_name,
                "formula": law_name,
                "r2": 0.98 - 0.1 * index,
                "aic": -120.0 + 40 * index + 5 * rng.normal(),
                "extrapolation_rmse": 0.03 * 3**index * math.exp(0.4 * rng.normal()),
            }
            for index, law_name in enumerate(names)
        ],
    }


def proxy(parameters, comparisons, **changes):
    accuracy = 0.6 + 0.02 * math.log(parameters * comparisons / 1e3)
    return {
        "parameters": parameters,
        "comparisons": comparisons,
        "epochs": 1,
        "flips": 0.0,
        "members": 1,
        "objective": "mean",
        "accuracy": around(accuracy, 0.01),
        "correlation": around(0.9 * accuracy, 0.02),
    } | changes


def world(rng, name, gold, turn):
    """Make a world; `turn` scales beta: 0.1 is a gold that hardly turns over."""
    arms = []
    for optimizer, scale in (("best_of_n", 0.8), ("ppo", 1.0)):
        for size, (alpha, beta) in SIZES.items():
            arms.append(
                arm(
                    rng,
                    f"{optimizer}-w{size}",
                    f"{size:,} parameters",
                    optimizer,
                    proxy(size, 32_000),
                    alpha / scale,
                    beta * turn * scale**2,
                    kl_coef=0.0,
                )
            )
        for count, (alpha, beta) in DATA.items():
            arms.append(
                arm(
                    rng,
                    f"{optimizer}-m{count}",
                    f"{count:,} comparisons",
                    optimizer,
                    proxy(9_540, count),
                    alpha / scale,
                    beta * turn * scale**2,
                    kl_coef=0.0,
                )
            )
    arms += [
        arm(rng, "dpo", "DPO, beta 0.1", "dpo", None, 0.7, 0.4 * turn, strength=0.1),
        arm(rng, "ipo", HOSTILE, "ipo", None, 0.6, 0.3 * turn, strength=0.1),
    ]
    broken = arms[-1]
    broken["fit"] |= dict.fromkeys(("alpha", "beta", "peak_d", "peak_gold", "located_peak_d"), NONE) | {"r2": math.nan}
    broken["curve"]["gold"]["low"][3] = math.nan
    arms[-2]["fit"] = None
    return {
        "name": name,
        "gold": gold,
        "description": f"A language of {name} with prompts and endings; its gold has <b>parts</b> that saturate.",
        "policy_parameters": 27_040,
        "policy_entropy": 46.6,
        "response_length": 14.2,
        "samples": [
            {"prompt": "ka ro", "response": "mi ta <eos> & so", "gold": 1.27},
            {"prompt": "su", "response": "lo lo mi ka ta ro ne vi", "gold": -0.71},
        ],
        "arms": arms,
    }


def trends(worlds):
    """Make the trends of both coefficients of both laws, against both sizes."""
    made = []
    for one in worlds:
        for against, key in (("parameters", "w"), ("comparisons", "m")):
            for optimizer, words in (("best_of_n", "best-of-n"), ("ppo", "RL")):
                arms = [each for each in one["arms"] if each["name"].startswith(f"{optimizer}-{key}")]
                for letter in ("alpha", "beta"):
                    values = [each["fit"][letter] for each in arms]
                    up = letter == "alpha"
                    made.append(
                        {
                            "world": one["name"],
                            "coefficient": f"{letter} {words}",
                            "against": against,
                            "x": [each["proxy"][against] for each in arms],
                            **{end: [value[end] for value in values] for end in ("mean", "low", "high")},
                            "slope": around(0.06 if up else -0.08, 0.02),
                            "gao": None if against == "comparisons" else "up" if up else "down",
                            "comes_out": None if against == "comparisons" else up or words == "RL",
                        }
                    )
    return made


def synthetic_result():
    """Make a whole result: two worlds that turn over and one that hardly does."""
    rng = np.random.default_rng(0)
    worlds = [world(rng, "world 0", "extremal", 1.0), world(rng, "world 1", "extremal", 0.85)]
    worlds.append(world(rng, "control", "teacher", 0.1))
    arms = {key: [f"{optimizer}-{key}" for optimizer in ("best_of_n", "ppo")] for key in ("w", "m")}
    claims = ["the proxy rises throughout", "gold rises, then falls", f"peak gold grows with size {HOSTILE}"]
    return {
        "preset": "quick",
        "config": {"world": {"vocabulary": 16, "length": 24, "prompt": [1, 2]}, "seeds": 5, "note": HOSTILE},
        "command": "rlx overopt --preset quick --out 'a <folder>'",
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "versions": {"python": "3.12.1", "jax": "0.10.0", "rlx": "0.1.0"},
        "device": "cpu, 2 cores",
        "wall_s": 412.7,
        "stages": [{"name": name, "seconds": s} for name, s in (("initial policy", 41.0), ("RL <b>", 301.2))],
        "worlds": worlds,
        "studies": [
            {
                "name": "size",
                "title": "Size of the reward model",
                "question": "Do larger reward models let us optimise further before the gold reward falls?",
                "finding": "Peak gold grows from 0.67 to 1.27 between 132 and 152,000 parameters in world 0.",
                "arms": [f"{arms['w'][i]}{size}" for i in (0, 1) for size in SIZES],
            },
            {
                "name": "data",
                "title": "Number of comparisons",
                "question": "What do more comparisons buy?",
                "finding": "Below 4,000 comparisons nothing changes; beyond, the peak moves out.",
                "arms": [f"{arms['m'][i]}{count}" for i in (0, 1) for count in DATA],
            },
            {
                "name": "direct alignment",
                "title": "Direct alignment: is there a hump without a reward model?",
                "question": "Rafailov et al. (2024) found one; is it here?",
                "finding": "",
                "arms": ["dpo", "ipo"],
            },
        ],
        "signatures": [
            {"claim": claim, "world": name, "found": f"all {9 - index} arms", "holds": holds}
            for index, claim in enumerate(claims)
            for name, holds in (("world 0", True), ("world 1", index < 1), ("control", None))
        ],
        "trends": trends(worlds[:2]),
        "gao": GAO,
    }


def from_json(result):
    """Give the result as it is read from result.json: NaN became null."""
    text = json.dumps(result, default=float).replace("NaN", "null")
    return json.loads(text)
