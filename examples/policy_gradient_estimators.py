"""What a baseline and a critic do to the policy gradient: bias and variance, against the exact gradient.

Run it: `python examples/policy_gradient_estimators.py` (about 20 seconds; it prints as it goes and saves
policy_gradient_estimators.png).

1. The gradient. An episode of a policy pi(a|s) with parameters theta is worth J in expectation. Its gradient is

       dJ / dtheta = E[ sum_t discount^t * A(s_t, a_t) * dlog pi(a_t|s_t) / dtheta ]

   (Sutton et al. 2000, theorem 1). In a finite MDP that is known, J, A and the sum over states are linear algebra, so
   that we have the right answer: `rlx.ops.policy_gradient`. A learner has episodes alone.

2. REINFORCE puts the return that followed, G_t, in place of A: right on average, but noisy. Any b(s_t) may be taken
   off it, as E[dlog pi] = 0: it moves no average. Off comes the mean return; better, the value V(s_t): what is left is
   how much better it went than expected *from there*.

3. Generalised advantage estimation trusts a critic V^ instead of waiting for what follows:

       delta_t = r_t + discount * V^(s_{t+1}) - V^(s_t),    A_t = delta_t + discount * lambda * A_{t+1}

   At lambda = 0 one step is real and the rest is the critic's opinion: little noise, but its errors are in the
   gradient for good. At lambda = 1 the critic is a baseline alone: no bias, all the noise. The least noise is a little
   above 0, as the opinions are noise too, where one goes from state to state. (Schulman et al. 2015,
   https://arxiv.org/abs/1506.02438; Greensmith et al. 2004 for baselines)
"""

import argparse
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import rlx

# ---------------------------------------------------------------------------------------------------------------------
# By hand: one state, two actions that pay 3 and 5, pi = (1/4, 3/4) by logits (0, log 3). One logit, that of action 1,
# is looked at. dlog pi(0) = -3/4 and dlog pi(1) = 1/4.
# ---------------------------------------------------------------------------------------------------------------------
PROBABILITY, REWARD, SCORE = np.array([0.25, 0.75]), np.array([3.0, 5.0]), np.array([-0.75, 0.25])


def by_hand() -> None:
    """The estimate reward * dlog pi, over all that can happen: two things."""
    print("one state, rewards 3 and 5, pi = (1/4, 3/4): the estimate (reward - b) * dlog pi(a)")
    for name, baseline in [("no baseline", 0.0), ("the mean, 4.5", 4.5)]:
        estimate = (REWARD - baseline) * SCORE
        mean = PROBABILITY @ estimate
        variance = PROBABILITY @ (estimate - mean) ** 2
        print(f"  {name:14} estimates {estimate[0]:7.4f} {estimate[1]:7.4f}  mean {mean:.4f}  variance {variance:.4f}")
    one_state = rlx.ops.MDP(
        probability=jnp.ones((1, 2, 1)),
        next_state=jnp.zeros((1, 2, 1), jnp.int32),
        reward=jnp.array([[[3.0], [5.0]]]),
        terminated=jnp.ones((1, 2, 1), bool),
        initial=jnp.ones(1),
    )
    exact = rlx.ops.policy_gradient(one_state, jnp.array([[0.0, np.log(3.0)]]), 1.0)[0, 1]
    print(f"  rlx.ops.policy_gradient: {exact:.4f}\n")
    np.testing.assert_allclose(PROBABILITY @ (REWARD * SCORE), exact, rtol=1e-5)


# ---------------------------------------------------------------------------------------------------------------------
# The random walk: states 0 to 6 in a row, begin in the middle. Each step moves as chosen nine times out of ten, else
# the other way, and pays 1; beyond the right end there is a reward of 10 more, and at either end it is over.
# ---------------------------------------------------------------------------------------------------------------------
TRACES = 0.0, 0.5, 0.9, 0.95, 1.0
NAMES = [f"REINFORCE, baseline {b}" for b in ("none", "mean", "value")] + [f"GAE, lambda {t:g}" for t in TRACES]
STATES, DISCOUNT, STEPS = 7, 0.95, 100  # hardly an episode is that long


def walk() -> rlx.ops.MDP:
    """States 0 to 6; action 0 to the left, 1 to the right; outcome 0 goes left, 1 right."""
    here = np.arange(STATES)[:, None, None]
    there = np.broadcast_to(here + np.array([-1, 1]), (STATES, 2, 2))
    probability = np.broadcast_to(np.array([[0.9, 0.1], [0.1, 0.9]]), there.shape)
    return rlx.ops.MDP(
        jnp.array(probability, jnp.float32),
        jnp.array(there.clip(0, STATES - 1), jnp.int32),
        jnp.array(1.0 + 10.0 * (there == STATES), jnp.float32),
        jnp.array((there < 0) | (there == STATES)),
        jax.nn.one_hot(STATES // 2, STATES),
    )


class Estimate(NamedTuple):
    """What an estimator, from one episode, comes to."""

    bias: jax.Array  # length of (mean estimate - exact gradient), relative to the exact one's; noise taken off
    worst: jax.Array  # largest deviation of a component from the exact one, in standard errors: below 4 is no bias
    variance: jax.Array  # of the estimate, summed over components, relative to the exact gradient's square


@partial(jax.jit, static_argnums=1)
def measure(key: jax.Array, episodes: int) -> list[Estimate]:
    """Play N episodes, estimate the gradient from each by every estimator of NAMES, compare with the exact one."""
    mdp = walk()
    play_key, policy_key, critic_key = jax.random.split(key, 3)
    logits = 0.5 * jax.random.normal(policy_key, (STATES, 2))
    policy = jax.nn.softmax(logits)
    exact = rlx.ops.policy_gradient(mdp, logits, DISCOUNT)
    value = rlx.ops.policy_values(mdp, policy, DISCOUNT)
    critic = value + jax.random.normal(critic_key, (STATES,))  # an opinion, off by some 1

    envs = rlx.vectorize(rlx.envs.TabularEnv(mdp), episodes)
    begin_key, rollout_key = jax.random.split(play_key)
    act = lambda logits, key, state: rlx.ops.Categorical(logits[state]).sample(key)  # noqa: E731
    _, rows, _ = rlx.rollout(envs, act, logits, rlx.start_rollout(envs, begin_key), rollout_key, STEPS)  # [T, N]
    first = jnp.cumsum(rows.terminated, axis=0) - rows.terminated == 0  # rows of the first episode
    weight = first * DISCOUNT ** jnp.arange(STEPS)[:, None]

    def advantage(values: jax.Array, trace: float) -> jax.Array:
        """A_t of a critic `[S]`; with values 0 and trace 1 it is the return G_t."""
        now, following = values[rows.observation], values[rows.next_observation]
        return rlx.ops.gae(rows.reward, now, following, rows.terminated, rows.truncated, DISCOUNT, trace)

    def gradient(psi: jax.Array) -> jax.Array:
        """`[N, S, 2]`: for each episode the gradient of `sum_t discount^t * psi_t * log pi(a_t|s_t)`."""

        def objective(logits: jax.Array, n: int) -> jax.Array:
            log_prob = rlx.ops.Categorical(logits[rows.observation[:, n]]).log_prob(rows.action[:, n])
            return jnp.sum(weight[:, n] * psi[:, n] * log_prob)

        return jax.vmap(jax.grad(objective), (None, 0))(logits, jnp.arange(episodes))

    returns = advantage(jnp.zeros(STATES), 1.0)
    total, count = jnp.sum(first * returns, axis=0), jnp.sum(first, axis=0)  # [N]
    of_the_others = (total.sum() - total) / (count.sum() - count)  # their mean: one's own would be a (small) bias
    psis = [returns, returns - of_the_others, returns - value[rows.observation]]
    psis += [advantage(critic, trace) for trace in TRACES]
    return [compare(gradient(psi), exact) for psi in psis]


def compare(gradients: jax.Array, exact: jax.Array) -> Estimate:
    """Estimates `[N, S, A]` against the exact gradient `[S, A]`."""
    mean, variance = jnp.mean(gradients, axis=0), jnp.var(gradients, axis=0)
    off, error = mean - exact, jnp.sqrt(variance / len(gradients))
    size = jnp.sum(exact**2)
    bias = jnp.sqrt(jnp.maximum(jnp.sum(off**2 - error**2), 0.0) / size)
    return Estimate(bias, jnp.max(jnp.abs(off) / error), jnp.sum(variance) / size)


def draw(estimates: dict[str, Estimate], picture: str) -> None:
    """Bias and variance of each, side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 4.0), dpi=150, layout="constrained")
    names = list(estimates)[::-1]
    for place, (what, title) in enumerate([("bias", "bias / |exact|"), ("variance", "variance / |exact|²")]):
        axes = figure.add_subplot(1, 2, place + 1, title=title)
        axes.barh(names, [getattr(estimates[name], what) for name in names], color=f"C{place}")
        axes.tick_params(labelleft=place == 0)
        axes.set_xscale("log" if what == "variance" else "linear")
    figure.savefig(picture)
    print(f"bias and variance: {picture}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=20_000, help="episodes to estimate from")
    parser.add_argument("--picture", default="policy_gradient_estimators.png", help="where to save the bars")
    arguments = parser.parse_args()
    by_hand()
    found = dict(zip(NAMES, measure(jax.random.key(0), arguments.episodes), strict=True))
    print(
        f"random walk, {arguments.episodes} episodes; against the exact gradient (in standard errors: 4 is no chance)"
    )
    print(f"{'estimator':24} {'bias':>7} {'in errors':>10} {'variance':>9}")
    for name, estimate in found.items():
        print(f"{name:24} {estimate.bias:7.3f} {estimate.worst:10.1f} {estimate.variance:9.2f}")
    draw(found, arguments.picture)
