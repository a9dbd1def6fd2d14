"""GRPO: other answers to the same prompt take the critic's place, and two divisions that change what is learned.

Run it: `python examples/grpo.py` (about half a minute; it prints as it goes and saves grpo.png).

1. The question. A critic is a second model as large as the first. Where a prompt can be answered several times, the
   other answers say what was to be expected: their mean is a baseline. Is that all there is to GRPO?

2. The advantage. G answers to a prompt have rewards r_1 ... r_G, and

       GRPO (Shao et al. 2024, https://arxiv.org/abs/2402.03300)       A_i = (r_i - mean) / (std + eps)
       Dr. GRPO (Liu et al. 2025, https://arxiv.org/abs/2503.20783)    A_i = r_i - mean
       RLOO (Ahmadian et al. 2024, https://arxiv.org/abs/2402.14740)   A_i = r_i - mean of the others

   The last two are the same but for the factor G / (G - 1). Where all answers are alike, all right or all wrong, every
   one of the three is 0: such a prompt teaches nothing, and costs as much as any.

3. The loss. Each token t of answer i has ratio = pi / pi_old and PPO's clipped term. GRPO takes the mean over an
   answer's tokens, then over answers; Dr. GRPO divides by a constant, the longest an answer may be:

       GRPO      1/B sum_i 1/|y_i| sum_t -min(ratio A_i, clip(ratio, 1 - clip, 1 + clip_high) A_i)
       Dr. GRPO  1/B sum_i 1/max   sum_t  the same

4. What the divisions do. By the std: a prompt that is solved twice in a hundred times pushes 3.0 times as hard as
   without, beside one that is solved half the time (with 64 answers each). By the length: a long wrong answer is blamed
   less per token than a short one, so wrong answers grow longer, though length has nothing to do with the reward; and
   right ones shorter. With a constant, neither has a reason to.

5. clip_high. With clip = 0.2 one batch takes a token of probability 0.01 to 0.012 at most, and one of 0.8 to 0.96: what
   is rare stays rare, and exploration dies. A higher upper bound (DAPO, Yu et al. 2025, https://arxiv.org/abs/2503.14476)
   gives the rare one more room: by hand, the good answers' ratios of 1.25 and 1.27 count in full.

6. What to look at. Left: all three learn the first letter that is rewarded, and end at 0.99 (ten seeds). Middle: the
   mean length of wrong answers (solid) under GRPO goes from 3.03 to 3.71 tokens, and that of right ones (dashed) from
   4.05 to 3.48; under the others both stay within 0.02. Right: how hard a prompt pushes, by how often it is solved. And
   printed: once nearly all is right, fewer than one group in ten still has a gradient.
"""

import argparse
import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rlx
from rlx.lm.enumerable import Language, TabularModel, string_log_probs

# ---------------------------------------------------------------------------------------------------------------------
# Three prompts with four answers each, by hand: advantages. Then the loss of the first prompt's answers.
# ---------------------------------------------------------------------------------------------------------------------
EPS, CLIP, CLIP_HIGH, LONGEST = 1e-6, 0.2, 0.28, 5

rewards = np.array([[1.0, 0.0, 0.0, 1.0], [2.0, 2.0, 2.0, 2.0], [0.1, 0.9, -0.4, 0.3]])
lengths = [2, 5, 1, 3]  # tokens of the four answers to the first prompt
ratios = [[1.1, 1.25], [0.9, 1.3, 0.7, 1.0, 1.0], [1.4], [1.5, 0.5, 1.27]]  # pi / pi_old of each of their tokens


def advantages_by_hand(group: np.ndarray) -> dict[str, list[float]]:
    """The three of them for one prompt; the standard deviation divides by G - 1."""
    size, mean = len(group), sum(group) / len(group)
    std = math.sqrt(sum((r - mean) ** 2 for r in group) / (size - 1))
    others = [(sum(group) - r) / (size - 1) for r in group]
    return {
        "GRPO": [(r - mean) / (std + EPS) for r in group],
        "Dr. GRPO": [r - mean for r in group],
        "RLOO": [r - other for r, other in zip(group, others, strict=True)],
    }


def loss_by_hand(advantage: list[float], divisor: str, clip_high: float) -> float:
    """Answer by answer, token by token."""
    total = 0.0
    for a, length, of_tokens in zip(advantage, lengths, ratios, strict=True):
        terms = [-min(ratio * a, min(max(ratio, 1 - CLIP), 1 + clip_high) * a) for ratio in of_tokens]
        total += sum(terms) / (length if divisor == "sequence" else LONGEST)
    return total / len(lengths)


SCALES = {"GRPO": ("mean", "group"), "Dr. GRPO": ("mean", "none"), "RLOO": ("leave_one_out", "none")}


def compare() -> None:
    """The same numbers from rlx.ops."""
    for name, (baseline, scale) in SCALES.items():
        same = rlx.ops.group_advantage(jnp.array(rewards), baseline, scale, EPS)
        hand = [advantages_by_hand(group)[name] for group in rewards]
        print(f"{name:8} " + " | ".join(" ".join(f"{a:6.3f}" for a in group) for group in same))
        np.testing.assert_allclose(hand, same, atol=1e-5)
    print("the second prompt's answers are all alike: no advantage, no gradient\n")

    mask = rlx.ops.length_mask(jnp.array(lengths), LONGEST)
    log_ratio = jnp.log(jnp.array([row + [1.0] * (LONGEST - len(row)) for row in ratios]))
    for name, aggregation in (("GRPO", "sequence"), ("Dr. GRPO", "constant")):
        for clip_high in (CLIP, CLIP_HIGH):
            advantage = rlx.ops.group_advantage(jnp.array(rewards[:1]), *SCALES[name], EPS).reshape(4, 1)
            term = rlx.ops.clipped_surrogate(
                log_ratio, jnp.zeros((4, LONGEST)), jnp.broadcast_to(advantage, mask.shape), CLIP, clip_high
            )
            by_ops = jnp.sum(rlx.ops.token_weights(mask, aggregation, LONGEST) * term)
            by_hand = loss_by_hand(advantages_by_hand(rewards[0])[name], aggregation, clip_high)
            print(f"{name:8} clip_high {clip_high:.2f}: loss by hand {by_hand:.6f}, by rlx.ops {by_ops:.6f}")
            np.testing.assert_allclose(by_hand, by_ops, rtol=1e-5, atol=1e-6)


def weight_of_prompt(solved: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """How hard a prompt pushes: mean of |A| over groups of `size` answers, right with probability `solved`.

    Returns:
        By r - mean, and by that over the standard deviation.
    """
    plain, divided = np.zeros_like(solved), np.zeros_like(solved)
    for right in range(1, size):  # with none and with all it is 0
        chance = math.comb(size, right) * solved**right * (1 - solved) ** (size - right)
        share = right / size
        push, std = 2 * share * (1 - share), math.sqrt(share * (1 - share) * size / (size - 1))
        plain, divided = plain + chance * push, divided + chance * push / std
    return plain, divided


# ---------------------------------------------------------------------------------------------------------------------
# The whole algorithm, on a language whose 1093 strings of up to six letters are listed: an answer is right if it begins
# with the letter 1, and how long it is changes nothing. Lengths of wrong and right answers are exact at every update.
# ---------------------------------------------------------------------------------------------------------------------
LANGUAGE = Language(vocabulary=4, max_tokens=6)
MODEL = TabularModel(LANGUAGE)
START = jax.tree.map(jnp.zeros_like, MODEL.init(jax.random.key(0), LANGUAGE.prompts.tokens))  # all tokens alike
SAMPLING = rlx.lm.Sampling(LANGUAGE.max_tokens, LANGUAGE.end)
STRINGS = LANGUAGE.strings
RATE = 0.5  # of plain gradient ascent on the sum over an answer's tokens

CONFIG = rlx.GRPOConfig(num_prompts=16, samples=8, kl_coef=0.0)
METHODS = {  # settings of one function, and the learning rate that makes up for what each divides by
    "GRPO": (dataclasses.replace(CONFIG, scale="group", aggregation="sequence"), RATE),
    "Dr. GRPO": (dataclasses.replace(CONFIG, scale="none", aggregation="constant"), RATE * LANGUAGE.max_tokens),
    "RLOO": (dataclasses.replace(CONFIG, baseline="leave_one_out", scale="none", aggregation="sequence_sum"), RATE),
}


def judge(sequences: rlx.lm.Sequences) -> jax.Array:
    """1 for an answer that begins with the letter 1."""
    return (sequences.response[:, 0] == 1).astype(jnp.float32)


def learn(name: str, updates: int, seeds: int) -> dict[str, np.ndarray]:
    """At each update `[seeds, updates]`: how much is right, the mean length of wrong and of right answers, exactly."""
    config, rate = METHODS[name]
    algorithm = rlx.grpo(MODEL, LANGUAGE.prompts, judge, optax.sgd(rate), SAMPLING, config, START)
    right, length = judge(STRINGS), STRINGS.response_length

    def step(state: rlx.GRPOState, _: None) -> tuple[rlx.GRPOState, dict[str, jax.Array]]:
        prob = jnp.exp(string_log_probs(MODEL, state.learner.params, LANGUAGE))
        wrong, solved = prob * (1.0 - right), prob * right
        lengths = (wrong @ length / wrong.sum(), solved @ length / solved.sum())
        state, metrics = algorithm.step(state)
        seen = {"right": solved.sum(), "wrong length": lengths[0], "right length": lengths[1]}
        return state, seen | {"effective": metrics["effective_groups"]}

    run = jax.vmap(lambda key: jax.lax.scan(step, algorithm.init(key), length=updates)[1])
    return jax.tree.map(np.asarray, rlx.jit(run)(jax.random.split(jax.random.key(0), seeds)))


def report(found: dict[str, dict[str, np.ndarray]], picture: str) -> None:
    """Print where each method came to and draw how."""
    plain, divided = weight_of_prompt(np.array([0.02, 0.5]), 64)
    times = (divided[0] / divided[1]) / (plain[0] / plain[1])
    print(f"\nthe std makes a prompt that is solved 2 times in 100 push {times:.1f} times as hard, beside one of 50\n")
    print("         right    groups that vary   length of wrong      of right    (at first, at last; exact)")
    for name, seen in found.items():
        means = {key: value.mean(axis=0) for key, value in seen.items()}
        spread = seen["wrong length"][:, -1].std(ddof=1) / math.sqrt(len(seen["right"]))
        print(
            f"{name:8} {means['right'][-1]:5.3f} {means['effective'][0]:12.2f}{means['effective'][-1]:6.2f}"
            f"{means['wrong length'][0]:9.2f} {means['wrong length'][-1]:.2f} +- {spread:.2f}"
            f"{means['right length'][0]:8.2f} {means['right length'][-1]:.2f}"
        )

    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.8, 4.0), dpi=150, layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for color, (name, seen) in enumerate(found.items()):
        for axes, key, style in ((left, "right", "-"), (middle, "wrong length", "-"), (middle, "right length", "--")):
            values = seen[key]
            margin = 1.96 * values.std(axis=0, ddof=1) / math.sqrt(len(values))
            axes.plot(values.mean(axis=0), style, color=f"C{color}", label=None if style == "--" else name)
            low, high = values.mean(axis=0) - margin, values.mean(axis=0) + margin
            axes.fill_between(np.arange(values.shape[1]), low, high, color=f"C{color}", alpha=0.2, linewidth=0)
    seeds = len(next(iter(found.values()))["right"])
    left.set(title=f"Right answers, {seeds} seeds", xlabel="updates of 128 answers", ylabel="probability")
    middle.set(title="Length of wrong (solid), right (dashed)", xlabel="updates of 128 answers", ylabel="tokens")
    left.legend()
    share = np.linspace(0.0, 1.0, 201)
    plain, divided = weight_of_prompt(share, 64)
    right.plot(share, divided / divided.max(), label="divided by the std (GRPO)")
    right.plot(share, plain / plain.max(), label="not divided (Dr. GRPO, RLOO)", color="C1")
    right.set(title="Push of a prompt, 64 answers", xlabel="how often it is solved", ylabel="mean |A|, greatest = 1")
    right.legend()
    figure.savefig(picture)
    print(f"learning curves, lengths and weights: {picture}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=200, help="updates of 128 answers each")
    parser.add_argument("--seeds", type=int, default=10, help="seeds of each method")
    parser.add_argument("--picture", default="grpo.png", help="where to save the picture")
    arguments = parser.parse_args()
    compare()
    report({name: learn(name, arguments.updates, arguments.seeds) for name in METHODS}, arguments.picture)
