"""Bradley-Terry: a reward model from which of two was better, what it cannot know, and what wrong labels do to it.

Run it: `python examples/bradley_terry.py` (about a minute; it prints as it goes and saves bradley_terry.png).

1. The question. Nobody can say that a text is worth 3.7. But of two texts people can say which is better, if not always
   the same one. How does one get a number for each text out of that?

2. The model. Give each text a score r, and let the probability that w is preferred to l be (Bradley and Terry 1952)

       p(w > l) = sigmoid(r_w - r_l) = exp(r_w) / (exp(r_w) + exp(r_l))

   The score is a network's, read at a text's last token. Maximum likelihood of what was preferred is (InstructGPT,
   Ouyang et al. 2022, https://arxiv.org/abs/2203.02155, equation 1)

       loss = -log sigmoid(r_w - r_l),        its gradient by r_w is -(1 - p), by r_l the same with a plus

   A pair that the model has right with certainty moves nothing; one it has wrong moves by 1, and no more.

3. What it cannot know. Add 5 to every score: the same loss. The zero is by chance, so that scores of different prompts
   or models cannot be compared as they are. The unit is the raters' noise: on a difference of 1, 73 percent agree.

4. Wrong labels. If a share e of the labels is swapped, what is seen is p' = (1 - 2 e) p + e, and the differences that
   fit best are logit(p'): in the same order, but flatter, and never beyond logit(1 - e). The model still says which is
   better; by how much, it says too cautiously. (`rlx.ops.lapse_loss` has the lapse in its likelihood.)

5. Few comparisons do the opposite: the network learns them by heart, and is surer than it may be.

6. What to look at, over five data sets each. Left: with 0, 10 and 25 percent of 4096 labels swapped 91, 90 and 88
   percent of all pairs are still in the right order, but the differences are 0.89, 0.61 and 0.34 of the true ones.
   Middle: so the noisy model is too cautious, and one of 64 comparisons far too sure: where it says 95 percent, raters
   say 63. Its loss on what it saw is 0.02, on all pairs 2.4; the raters' own doubt is 0.49. Right: more comparisons.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rlx
from rlx.lm.enumerable import Language
from rlx.nets.transformer import Transformer, TransformerConfig

# ---------------------------------------------------------------------------------------------------------------------
# Four comparisons, by hand. The last has a difference of 200: exp(200) does not fit into a float32.
# ---------------------------------------------------------------------------------------------------------------------
chosen = np.array([1.0, 0.2, -3.0, 100.0])  # r_w
rejected = np.array([0.5, 0.9, -3.0, -100.0])  # r_l


def by_hand() -> tuple[np.ndarray, np.ndarray]:
    """Losses, and their gradients by r_w."""
    probability = 1.0 / (1.0 + np.exp(-(chosen - rejected)))
    return -np.log(probability), probability - 1.0


def compare() -> None:
    """The same numbers from rlx.ops, and again with 5 added to every score."""
    losses, slopes = by_hand()
    w, l = jnp.array(chosen), jnp.array(rejected)  # noqa: E741
    same = rlx.ops.bradley_terry_loss(w, l)
    gradient = jax.grad(lambda w: jnp.sum(rlx.ops.bradley_terry_loss(w, l)))(w)
    print(f"{'r_w':>6} {'r_l':>6} {'loss':>8} {'rlx.ops':>8} {'gradient':>9} {'rlx.ops':>8}")
    for row in zip(chosen, rejected, losses, same, slopes, gradient, strict=True):
        print("{:6.1f} {:6.1f} {:8.4f} {:8.4f} {:9.4f} {:8.4f}".format(*row))
    shifted = rlx.ops.bradley_terry_loss(w + 5.0, l + 5.0)
    print(f"mean loss by hand {losses.mean():.6f}, by rlx.ops.bradley_terry_loss {same.mean():.6f}")
    print(f"with 5 added to every score {shifted.mean():.6f}\n")
    np.testing.assert_allclose(losses, same, atol=1e-6)
    np.testing.assert_allclose(slopes, gradient, atol=1e-6)
    np.testing.assert_allclose(shifted, same, atol=1e-5)


# ---------------------------------------------------------------------------------------------------------------------
# Learning, where the truth is known: 121 strings of up to four letters, a gold score for each, and raters who prefer by
# it as Bradley and Terry say. Reward models see comparisons of random strings, some of them with the label swapped.
# ---------------------------------------------------------------------------------------------------------------------
LANGUAGE = Language(vocabulary=4, max_tokens=4)
STRINGS = LANGUAGE.strings
MODEL = Transformer(TransformerConfig(vocabulary=4, width=32, layers=1, heads=2), head="score")
MOST = 4096  # comparisons
CONDITIONS = [(MOST, 0.0), (MOST, 0.1), (MOST, 0.25), (1024, 0.0), (256, 0.0), (64, 0.0)]  # how many, share swapped


def gold_score() -> jax.Array:
    """Each letter's worth, and 1.5 more where a 1 is followed by a 2: `[121]`."""
    worth = jnp.array([0.0, 0.6, -0.8, 0.3])[STRINGS.response]
    followed = (STRINGS.response[:, :-1] == 1) & (STRINGS.response[:, 1:] == 2) & STRINGS.mask[:, 1:]
    return jnp.sum(jnp.where(STRINGS.mask, worth, 0.0), axis=1) + 1.5 * jnp.sum(followed, axis=1)


GOLD = gold_score()
FIRST, SECOND = np.triu_indices(len(GOLD), 1)  # every pair of strings
TRUTH = np.asarray(GOLD[FIRST] - GOLD[SECOND])  # the gold difference of each pair


def compare_strings(key: jax.Array, count: jax.Array, swapped: jax.Array) -> rlx.lm.Comparisons:
    """Draw MOST comparisons of which the first `count` are used, over and over."""
    pair_key, label_key, swap_key = jax.random.split(key, 3)
    pair = jax.random.randint(pair_key, (2, MOST), 0, len(GOLD))
    first_is_better = jax.random.bernoulli(label_key, jax.nn.sigmoid(GOLD[pair[0]] - GOLD[pair[1]]))
    first_is_chosen = first_is_better ^ jax.random.bernoulli(swap_key, swapped, (MOST,))
    ordered = jnp.where(first_is_chosen, pair, pair[::-1])[:, jnp.arange(MOST) % count]
    chosen, rejected = (jax.tree.map(lambda x, side=side: x[side], STRINGS) for side in ordered)
    return rlx.lm.Comparisons(chosen, rejected, jnp.zeros(MOST), jnp.zeros(MOST, bool))


def learn(steps: int, seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of all strings `[conditions, seeds, 121]` and training losses, each seed with comparisons of its own."""
    optimizer = optax.adam(optax.linear_schedule(3e-3, 0.0, steps))

    def one(condition: tuple[jax.Array, jax.Array], key: jax.Array) -> tuple[jax.Array, jax.Array]:
        data_key, train_key = jax.random.split(key)
        data = compare_strings(data_key, *condition)
        algorithm = rlx.reward_model(MODEL, data, optimizer, rlx.RewardModelConfig(batch_size=128))
        state, metrics = rlx.train(algorithm, train_key, steps)
        return algorithm.act(state, None, STRINGS), jnp.mean(metrics["loss"][-MOST // 128 :])

    conditions = tuple(jnp.array(x) for x in zip(*CONDITIONS, strict=True))
    keys = jax.random.split(jax.random.key(0), seeds)
    scores, losses = rlx.jit(jax.vmap(jax.vmap(one, (None, 0)), (0, None)))(conditions, keys)
    return np.asarray(scores), np.asarray(losses)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x))."""
    return 1.0 / (1.0 + np.exp(-x))


def report(scores: np.ndarray, losses: np.ndarray, picture: str) -> None:
    """Judge every model on all pairs of strings by the true probabilities; print and draw."""
    difference = scores[..., FIRST] - scores[..., SECOND]  # [conditions, seeds, pairs]
    truth = sigmoid(TRUTH)
    told_apart = np.abs(TRUTH) > 1e-6
    accuracy = np.mean((difference * TRUTH > 0)[..., told_apart], axis=-1)
    predicted = sigmoid(difference)
    losses_of = truth * np.logaddexp(0, -difference) + (1 - truth) * np.logaddexp(0, difference)
    cross_entropy = np.mean(losses_of, axis=-1)
    slope = np.sum(difference * TRUTH, axis=-1) / np.sum(TRUTH**2)
    off = np.mean(np.abs(predicted - truth), axis=-1)
    least = -np.mean(truth * np.log(truth) + (1 - truth) * np.log1p(-truth))
    print(f"{'comparisons':>11} {'swapped':>7} {'right order':>14} {'slope':>13} {'|p - true p|':>14} loss seen, true")
    for c, (count, swapped) in enumerate(CONDITIONS):
        columns = "".join(f"{x[c].mean():8.3f} +- {x[c].std(ddof=1):.3f}" for x in (accuracy, slope, off))
        print(f"{count:11} {swapped:7} {columns} {losses[c].mean():8.3f} {cross_entropy[c].mean():.3f}")
    print(f"the true loss can be no lower than {least:.3f}, the raters' own doubt")
    draw(difference, (accuracy, off), picture)


def binned(by: np.ndarray, values: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centres of the bins that every seed has pairs in, the mean of the values there, and two standard errors."""
    inside = [np.digitize(by, edges) == b for b in range(1, len(edges))]
    kept = [b for b, cell in enumerate(inside) if cell.any(axis=1).all()]
    means = np.array([np.mean(values, axis=1, where=inside[b]) for b in kept])  # [bins, seeds]
    return ((edges[:-1] + edges[1:]) / 2)[kept], means.mean(1), error_of(means)


def error_of(values: np.ndarray) -> np.ndarray:
    """Two standard errors of the mean over seeds, the last axis."""
    return 2 * values.std(axis=-1, ddof=1) / values.shape[-1] ** 0.5


def draw(difference: np.ndarray, by_count: tuple[np.ndarray, np.ndarray], picture: str) -> None:
    """Learned differences against true ones, calibration, and what the number of comparisons does."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.8, 4.0), dpi=150, layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    learned = np.concatenate([difference, -difference], axis=-1)  # each pair both ways round
    truth = np.broadcast_to(np.append(TRUTH, -TRUTH), learned.shape[1:])  # [seeds, pairs]
    for c, (_, swapped) in enumerate(CONDITIONS[:3]):
        centres, mean, error = binned(truth, learned[c], np.linspace(-4, 4, 17))
        left.errorbar(centres, mean, error, fmt="o", markersize=3)
        expected = (1 - 2 * swapped) * sigmoid(centres) + swapped
        left.plot(centres, np.log(expected / (1 - expected)), color=f"C{c}", linewidth=0.8, label=f"{swapped:.0%}")
    left.set(title="Scores of pairs (lines: what fits best)", xlabel="true difference", ylabel="learned difference")
    left.legend(title="labels swapped", fontsize="small")

    for c, name in ((0, "4096 comparisons"), (2, "4096, 25% swapped"), (5, "64 comparisons")):
        centres, mean, error = binned(sigmoid(learned[c]), sigmoid(truth), np.linspace(0, 1, 11))
        middle.errorbar(centres, mean, error, marker="o", markersize=3, label=name)
    middle.plot([0, 1], [0, 1], "k:", linewidth=0.8)
    middle.set(title="Calibration", xlabel="the model's probability", ylabel="the raters' probability")
    middle.legend(fontsize="small")

    clean = [c for c, (_, swapped) in enumerate(CONDITIONS) if swapped == 0.0]
    for values, name in zip(by_count, ("pairs in the right order", "|p - true p|"), strict=True):
        counts, mean = [CONDITIONS[c][0] for c in clean], values[clean].mean(axis=1)
        right.errorbar(counts, mean, error_of(values[clean]), marker="o", markersize=3, capsize=3, label=name)
    right.set(title="By the number of comparisons", xlabel="comparisons, none swapped", xscale="log", ylim=(0, 1))
    right.legend(fontsize="small")
    figure.savefig(picture)
    print(f"differences, calibration and sizes, bars of two standard errors: {picture}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=320, help="gradient steps on 128 comparisons each")
    parser.add_argument("--seeds", type=int, default=5, help="data sets and networks of each condition")
    parser.add_argument("--picture", default="bradley_terry.png", help="where to save the picture")
    arguments = parser.parse_args()
    compare()
    report(*learn(arguments.steps, arguments.seeds), arguments.picture)
