"""How to try things out: epsilon, softmax, UCB, entropy and optimism, on a bandit and in a deep sea.

Run it: `python examples/exploration.py` (about a minute; it prints as it goes and saves exploration.png).

1. The question. Who always takes what looks best never learns that something else is better; who always tries things
   out never earns. What one loses against the best, summed over time, is the regret. How to keep it small?

2. One state (a bandit with 10 arms). Dithering tries without a reason: epsilon-greedy any action now and then, softmax
   the better ones more often, pi(a) ~ exp(Q(a) / temperature), which is the policy that trades reward for entropy best.
   The upper confidence bound has a reason: an action that was tried N(a) times of N could still be as good as

       Q(a) + bonus * sqrt(log N / N(a))

   so take the one that could be best (Auer et al. 2002). Its regret grows with log N, that of a constant epsilon
   with N.

3. Many states (DeepSea; Osband et al. 2020). Ten steps down, each to the left or to the right. Always right leads to a
   treasure, worth 1; but each step to the right costs a little, and one step to the left spoils it. Whoever dithers
   gets there once in 2^10 episodes. It does not help to count in each state on its own, nor to value entropy: one has
   to know *at the top* that something is untried *at the bottom*. Values carry news from the bottom to the top: so
   begin with optimism, every action worth 1 until it is known to be less, and let the backup do the rest.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

import rlx

TEMPERATURE = 0.1  # of the entropy-regularised learner

# ---------------------------------------------------------------------------------------------------------------------
# By hand: four actions, what they seem to be worth, and how often each was tried.
# ---------------------------------------------------------------------------------------------------------------------
Q, COUNT = np.array([1.0, 2.0, 0.5, 1.8]), np.array([10, 50, 40, 4])


def compare() -> None:
    """Each policy by hand, and the same numbers from rlx.ops."""
    index = Q + 1.0 * np.sqrt(np.log(COUNT.sum()) / COUNT)
    weight = np.exp(Q / 0.5)
    by_hand = {
        "epsilon_policy": 0.2 / 4 + 0.8 * (np.arange(4) == np.argmax(Q)),
        "softmax_policy": weight / sum(weight),
        "ucb_policy": 1.0 * (np.arange(4) == np.argmax(index)),
    }
    print(f"Q {Q}, tried {COUNT} times; could be as good as {index.round(2)}")
    for (name, probability), amount in zip(by_hand.items(), (0.2, 0.5, 1.0), strict=True):
        same = jax.nn.softmax(getattr(rlx.ops, name)(jnp.array(Q), jnp.array(COUNT), amount).logits)
        print(f"{name:15} by hand {probability.round(3)}, by rlx.ops {np.asarray(same).round(3)}")
        np.testing.assert_allclose(probability, same, rtol=1e-5)
    print()


def entropy_target(
    reward: jax.Array,
    terminated: jax.Array,
    next_q: jax.Array,
    next_policy: jax.Array,
    next_action: jax.Array,
    discount: float,
) -> jax.Array:
    """Expected SARSA's, if the entropy of what follows is worth something too (soft Q-learning, Haarnoja et al. 2017).

    r + discount * sum_a pi(a|s') (Q(s', a) - temperature * log pi(a|s')): a target is a function, so write your own.
    """
    soft_q = next_q - TEMPERATURE * jnp.log(next_policy)
    return rlx.ops.expected_sarsa_target(reward, terminated, soft_q, next_policy, next_action, discount)


# ---------------------------------------------------------------------------------------------------------------------
# What each loses. A learner is a target, a policy and a few numbers.
# ---------------------------------------------------------------------------------------------------------------------
EPSILON, SOFTMAX, UCB = rlx.ops.epsilon_policy, rlx.ops.softmax_policy, rlx.ops.ucb_policy
MAX, SOFT = rlx.ops.q_learning_target, entropy_target
BANDIT = {
    "greedy": (MAX, EPSILON, {"exploration": 0.0}),
    "epsilon 0.1": (MAX, EPSILON, {"exploration": 0.1}),
    "softmax 0.3": (MAX, SOFTMAX, {"exploration": 0.3}),
    "UCB 1": (MAX, UCB, {"exploration": 1.0}),
}
SEA = {
    "epsilon 0.1": (MAX, EPSILON, {"exploration": 0.1}),
    "softmax 0.1": (MAX, SOFTMAX, {"exploration": 0.1}),
    "UCB 1, in each state": (MAX, UCB, {"exploration": 1.0}),
    "entropy 0.1": (SOFT, SOFTMAX, {"exploration": TEMPERATURE}),
    "optimism": (MAX, EPSILON, {"exploration": 0.0, "initial_value": 1.0}),
}


def bandit_regret(learner: tuple, keys: jax.Array, pulls: int) -> np.ndarray:
    """Regret after each block of 10 pulls, `[seeds, blocks]`; every seed has arms of its own."""
    target, policy, numbers = learner
    config = rlx.TabularConfig(num_steps=10, step_size=1.0, step_size_power=1.0, **numbers)  # Q is the mean

    def run(key: jax.Array) -> jax.Array:
        arms_key, run_key = jax.random.split(key)
        mean = jax.random.normal(arms_key, (10,))
        algorithm = rlx.td_control(rlx.envs.Bandit(mean), target, policy, config)
        _, metrics = rlx.train(algorithm, run_key, pulls // 10)
        return jnp.cumsum(10 * (mean.max() - metrics["episode_return"]))

    return np.asarray(jax.jit(jax.vmap(run))(keys))


def sea_regret(learner: tuple, keys: jax.Array, episodes: int, size: int) -> np.ndarray:
    """Regret after each episode, `[seeds, episodes]`."""
    target, policy, numbers = learner
    config = rlx.TabularConfig(num_steps=size, discount=1.0, step_size=0.5, **numbers)  # a step: an episode
    algorithm = rlx.td_control(rlx.envs.deep_sea(size), target, policy, config)
    _, metrics = jax.jit(jax.vmap(lambda key: rlx.train(algorithm, key, episodes)))(keys)
    return np.cumsum(0.99 - np.asarray(metrics["episode_return"]), axis=1)


def learn(pulls: int, episodes: int, seeds: int, picture: str) -> None:
    """Measure and draw the regrets, with 95 % intervals over the seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 3.8), dpi=150, layout="constrained")
    bandit, sea = figure.subplots(1, 2)
    keys, size = jax.random.split(jax.random.key(0), seeds), 10
    for axes, learners, regret, every in [
        (bandit, BANDIT, lambda learner: bandit_regret(learner, keys, pulls), 10),
        (sea, SEA, lambda learner: sea_regret(learner, keys, episodes, size), 1),
    ]:
        print("bandit with 10 arms" if axes is bandit else f"\nDeepSea of size {size}")
        for name, learner in learners.items():
            curves = regret(learner)
            mean, width = curves.mean(0), 1.96 * curves.std(0) / np.sqrt(seeds)
            time = every * (np.arange(mean.size) + 1)
            axes.plot(time, mean, linewidth=0.9, label=name)
            axes.fill_between(time, mean - width, mean + width, alpha=0.2)
            print(f"  {name:21} regret {mean[-1]:7.1f} ± {width[-1]:.1f} after {time[-1]}, {seeds} seeds")
    bandit.set(title="bandit with 10 arms", xlabel="pulls", ylabel="regret")
    sea.set(title=f"DeepSea of size {size}", xlabel="episodes", ylabel="regret")
    bandit.legend()
    sea.legend()
    figure.savefig(picture)
    print(f"regrets: {picture}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pulls", type=int, default=2000, help="pulls of the bandit's arms")
    parser.add_argument("--episodes", type=int, default=1000, help="episodes in the deep sea")
    parser.add_argument("--seeds", type=int, default=50, help="runs of each learner")
    parser.add_argument("--picture", default="exploration.png", help="where to save the regret curves")
    arguments = parser.parse_args()
    compare()
    learn(arguments.pulls, arguments.episodes, arguments.seeds, arguments.picture)
