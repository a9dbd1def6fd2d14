"""Direct Preference Optimization, and why the chosen response becomes less probable too.

Run it: `python examples/dpo.py` (about 40 seconds; it prints as it goes and saves dpo.png).

1. The question. People have said of pairs of responses which one they prefer. RLHF learns a reward r from that, then
   a policy that maximises E[r] - beta KL(pi || ref). Can the policy be had from the pairs alone?

2. The trick. That optimum is known: pi*(y) = ref(y) exp(r(y) / beta) / Z. Turn it round:

       r(y) = beta log(pi*(y) / ref(y)) + beta log Z

   so a policy is a reward, up to a constant, and in a difference of two rewards the constant goes away. Put it where a
   reward model has its own (Bradley and Terry: the chosen wins with probability sigmoid(r_w - r_l)):

       L = -log sigmoid(beta (log pi(w)/ref(w) - log pi(l)/ref(l)))

   (Rafailov et al. 2023, https://arxiv.org/abs/2305.18290, equation 7)

3. The catch. The loss sees the difference, the margin, and nothing else. It may grow with both log-probabilities
   falling, and does: push a response down, and all that is like it goes down as well, the chosen one too. What both
   lose goes to third responses, which nobody judged (Razin et al. 2024, https://arxiv.org/abs/2410.08847).
"""

import argparse
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rlx
from rlx.lm.enumerable import Language, divergence, frontier, string_log_probs
from rlx.lm.log_linear import LogLinearModel

# ---------------------------------------------------------------------------------------------------------------------
# Three pairs, by hand: log-probabilities of whole responses, in nats, by the policy and by the reference.
# ---------------------------------------------------------------------------------------------------------------------
BETA = 0.1

chosen, rejected = np.array([-10.0, -12.0, -7.0]), np.array([-11.0, -9.0, -15.0])
ref_chosen, ref_rejected = np.array([-10.5, -11.0, -8.0]), np.array([-10.0, -10.0, -14.0])


def losses_by_hand() -> list[float]:
    """Pair by pair, as the formula reads."""
    rows = []
    for better, worse, ref_better, ref_worse in zip(chosen, rejected, ref_chosen, ref_rejected, strict=True):
        difference = BETA * (better - ref_better) - BETA * (worse - ref_worse)
        rows.append(-np.log(1.0 / (1.0 + np.exp(-difference))))
    return rows


def compare() -> None:
    """The same numbers from rlx.ops."""
    by_hand = losses_by_hand()
    margin = jnp.array(chosen - ref_chosen - (rejected - ref_rejected))
    losses = rlx.ops.dpo_loss(margin, BETA)
    weight = -jax.vmap(jax.grad(rlx.ops.dpo_loss), (0, None))(margin, BETA)
    print(f"{'pair':>4} {'margin':>7} {'loss by hand':>13} {'rlx.ops.dpo_loss':>17} {'pull on the margin':>19}")
    for pair in range(3):
        print(f"{pair:4} {margin[pair]:7.2f} {by_hand[pair]:13.6f} {losses[pair]:17.6f} {weight[pair]:19.4f}")
    print(f"mean loss by hand {np.mean(by_hand):.6f}, by rlx.ops.dpo_loss {losses.mean():.6f}")
    print("The second pair is the wrong way round, and pulls most.\n")
    np.testing.assert_allclose(by_hand, losses, rtol=1e-5)


# ---------------------------------------------------------------------------------------------------------------------
# Why both fall, in the smallest case: three responses, whose scores are weight . features. A gradient step of size s
# moves the weight by s (f_w - f_l), and the chosen response's log-probability by s (f_w - E[f]) . (f_w - f_l).
# ---------------------------------------------------------------------------------------------------------------------
START = np.array([0.6, 0.2, 0.2])  # the third response, the chosen, the rejected
SHARED = np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 1.0]])  # the rejected one is like the chosen one, only more so
APART = np.eye(3)  # a table: what moves one response moves no other


def three_responses(name: str, features: np.ndarray) -> None:
    """Train on one pair, and ask the doctor."""
    slope = (features[1] - START @ features) @ (features[1] - features[2])
    language = Language(vocabulary=3, max_tokens=1)
    model = LogLinearModel(language, base=jnp.log(START), string_features=features)
    params = model.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    pairs = pairs_of(language, jnp.array([1, 1]), jnp.array([2, 2]))
    sampling = rlx.lm.Sampling(max_tokens=1, end=0)
    config = rlx.DPOConfig(batch_size=2, beta=BETA)
    algorithm = rlx.dpo(model, pairs, optax.sgd(1.0), sampling, config, params)
    state, _ = rlx.jit(lambda key: rlx.train(algorithm, key, 200), once=True)(jax.random.key(0))
    print(f"--- one pair of three responses, {name}: the chosen one begins to move at {slope:+.1f} a unit of step")
    print(rlx.lm.diagnose(model, state.learner.params, params, pairs, sampling, jax.random.key(1)), end="\n\n")


def pairs_of(language: Language, winner: jax.Array, loser: jax.Array) -> rlx.lm.Comparisons:
    """Strings by their numbers, as comparisons; one with itself is a tie."""
    chosen, rejected = (rlx.lm.Sequences(*(x[index] for x in language.strings)) for index in (winner, loser))
    return rlx.lm.Comparisons(chosen, rejected, jnp.zeros(winner.shape), winner == loser)


# ---------------------------------------------------------------------------------------------------------------------
# A language of 40 strings, so small that expected reward and divergence are exact. 1,536 pairs drawn from the
# reference, judged by Bradley and Terry's model. A table can be any policy; one with 8 features for 40 strings cannot.
# ---------------------------------------------------------------------------------------------------------------------
LANGUAGE = Language(vocabulary=4, max_tokens=3)
SAMPLING = rlx.lm.Sampling(max_tokens=3, end=0)
STRINGS, PAIRS, HELD_OUT = 40, 1536, 512


class Problem(NamedTuple):
    """A reference, a reward and what was judged.

    Attributes:
        base: `[40]` log-probabilities of the reference.
        reward: `[40]`.
        features: `[40, 8]`, at random.
        pairs: to learn from.
        held_out: to look at.
    """

    base: jax.Array
    reward: jax.Array
    features: jax.Array
    pairs: rlx.lm.Comparisons
    held_out: rlx.lm.Comparisons


def make_problem(key: jax.Array) -> Problem:
    """One of many."""
    base_key, reward_key, feature_key, pair_key, label_key = jax.random.split(key, 5)
    base = jax.nn.log_softmax(jax.random.normal(base_key, (STRINGS,)))
    reward = 2.0 * jax.random.normal(reward_key, (STRINGS,))
    first, second = jax.random.categorical(pair_key, base, shape=(2, PAIRS + HELD_OUT))
    won = jax.random.uniform(label_key, first.shape) < jax.nn.sigmoid(reward[first] - reward[second])
    pairs = pairs_of(LANGUAGE, jnp.where(won, first, second), jnp.where(won, second, first))
    learnt, held_out = (
        jax.tree.map(lambda x, part=part: x[part], pairs) for part in (slice(PAIRS), slice(PAIRS, None))
    )
    return Problem(base, reward, jax.random.normal(feature_key, (STRINGS, 8)), learnt, held_out)


def make(problem: Problem, shared: bool, sft_coef: float) -> tuple[rlx.Algorithm, Any, Any]:
    """Direct Preference Optimization of a table or of a policy with features; its model and its reference."""
    features = problem.features if shared else jnp.eye(STRINGS)
    model = LogLinearModel(LANGUAGE, base=problem.base, string_features=features)
    params = model.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    config = rlx.DPOConfig(batch_size=64, beta=BETA, sft_coef=sft_coef)
    return rlx.dpo(model, problem.pairs, optax.adam(0.05), SAMPLING, config, params), model, params


def run(key: jax.Array, steps: int, shared: bool, sft_coef: float) -> tuple[Any, dict[str, jax.Array]]:
    """Train on a problem of its own; parameters, and the metrics of every step with exact reward and divergence."""
    problem = make_problem(key)
    algorithm, model, _ = make(problem, shared, sft_coef)

    def step(state, _):
        log_prob = string_log_probs(model, state.learner.params, LANGUAGE)
        state, metrics = algorithm.step(state)
        exact = {"reward": jnp.exp(log_prob) @ problem.reward, "kl": divergence(log_prob, problem.base)}
        return state, metrics | exact

    state, metrics = jax.lax.scan(step, algorithm.init(key), length=steps)
    return state.learner.params, metrics


KINDS = {
    "a table": (False, 0.0),
    "shared features": (True, 0.0),
    "shared features, + SFT term": (True, 0.3),
}


def learn(steps: int, picture: str) -> None:
    """Four problems, three policies each; the doctor's words on the first problem; a figure."""
    from matplotlib.figure import Figure

    keys = jax.random.split(jax.random.key(0), 4)
    problem = rlx.jit(make_problem, once=True)(keys[0])
    figure = Figure(figsize=(11.0, 4.0), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    for index, (name, (shared, sft_coef)) in enumerate(KINDS.items()):
        runs = jax.vmap(lambda key, kind=(shared, sft_coef): run(key, steps, *kind))
        params, metrics = rlx.jit(runs, once=True)(keys)
        _, model, ref_params = make(problem, shared, sft_coef)
        first = jax.tree.map(lambda x: x[0], params)
        print(f"--- {PAIRS} pairs, {name}: expected reward before, at its best, after: ", end="")
        for reward in metrics["reward"]:
            print(f"{reward[0]:.2f} {reward.max():.2f} {reward[-1]:.2f}", end="; ")
        print("four problems")
        print(rlx.lm.diagnose(model, first, ref_params, problem.held_out, SAMPLING, jax.random.key(1)), end="\n\n")
        color = f"C{index}"
        for side, style in (("chosen", "-"), ("rejected", ":")):
            left.plot(metrics[f"{side}_reward"].mean(axis=0) / BETA, style, color=color, label=f"{name}: {side}")
        right.plot(metrics["kl"][0], metrics["reward"][0], color=color, label=name)
    left.set(title="Both fall", xlabel="gradient steps", ylabel="log-ratio to the reference, nats (mean of 4)")
    left.legend(fontsize="small")
    best = frontier(problem.base, problem.reward)
    right.plot(best.kl, best.reward, "k--", linewidth=0.8, label="the most any policy can have")
    right.set(title="Harm or not: one problem", xlabel="KL(policy || reference), nats", ylabel="exact expected reward")
    right.legend(fontsize="small")
    print("Both fall in the table too: what takes the place of two poor responses is better there, and worse where it")
    print("is whatever the features carry along. The pairs do not tell which: only a reward, or people, can.")
    figure.savefig(picture)
    print(f"log-ratios, and reward against divergence: {picture}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400, help="gradient steps")
    parser.add_argument("--picture", default="dpo.png", help="where to save the picture")
    arguments = parser.parse_args()
    compare()
    three_responses("in a table", APART)
    three_responses("with shared features", SHARED)
    learn(arguments.steps, arguments.picture)
