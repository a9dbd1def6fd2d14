"""Soft actor-critic, from four transitions to a pendulum that stands.

Run it: `python examples/sac.py` (about a minute; it prints as it goes and saves sac.png).

1. The question. A deterministic policy that climbs its critic's values finds every error of the critic and lives there.
   Can a policy be greedy and still keep its options open, and keep trying them?

2. The answer of maximum entropy. Pay for randomness: besides reward, each step earns alpha times the policy's entropy,
   H(pi) = -E[log pi(a|s)]. Alpha, the temperature, is what a nat of entropy is worth in units of reward. A value then
   counts the entropy to come, and what a critic is taught is

       y = r + discount * (1 - terminated) * ( min(Q_1(s', a'), Q_2(s', a')) - alpha * log pi(a'|s') ),   a' ~ pi(.|s')

   The lesser of two critics, since the maximum over noisy estimates is too high. It is off-policy: any row will do.
   (Haarnoja et al. 2018, https://arxiv.org/abs/1801.01290 and https://arxiv.org/abs/1812.05905)

3. The policy. Torques have bounds, a normal has none: draw u from a normal, and act with a = tanh(u), in (-1, 1). The
   density changes by the slope of tanh:

       log pi(a) = log N(u; mean, scale) - log(1 - tanh(u)^2)

   At |u| = 20 tanh is 1 in float32, and the logarithm -inf; 2 (log 2 - u - softplus(-2u)) is the same number, exact.

4. The units. The density is over the box (-1, 1), and the environment's torque of -2 to 2 is that times 2. In units of
   torque every density would be half as high, every log-probability less by log 2, and an entropy of -1 mean another
   policy: always say in which units a target entropy is meant. Here it is -1 for each dimension, in the box.
"""

import argparse
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rlx

# ---------------------------------------------------------------------------------------------------------------------
# Four transitions, by hand. The third terminates (nothing follows), the fourth is truncated (time was up: it would have
# gone on). In each next state the policy is a tanh-Normal, u was drawn from it, and two critics have judged tanh(u).
# ---------------------------------------------------------------------------------------------------------------------
DISCOUNT, ALPHA = 0.9, 0.2

reward = np.array([1.0, -0.5, 2.0, 0.0])
terminated = np.array([0, 0, 1, 0], bool)
mean = np.array([0.0, 0.5, 1.0, -2.0])  # of the normal in s'
scale = np.array([1.0, 0.5, 0.2, 0.1])
u = np.array([0.0, 1.0, 1.1, -2.2])  # what was drawn
first = np.array([3.0, 1.0, 4.0, -1.0])  # Q_1(s', tanh(u))
second = np.array([2.5, 1.5, 5.0, -0.5])  # Q_2(s', tanh(u))


def log_probs_by_hand() -> np.ndarray:
    """Row by row: a normal's density, then the slope of tanh."""
    rows = []
    for m, s, x in zip(mean, scale, u, strict=True):
        normal = -0.5 * ((x - m) / s) ** 2 - math.log(s) - 0.5 * math.log(2 * math.pi)
        rows.append(normal - math.log(1 - math.tanh(x) ** 2))
    return np.array(rows)


def targets_by_hand(log_prob: np.ndarray) -> np.ndarray:
    """Row by row, as the formula reads; the truncated row is like any other."""
    rows = []
    for t in range(4):
        soft_value = min(first[t], second[t]) - ALPHA * log_prob[t]
        rows.append(reward[t] + DISCOUNT * (0.0 if terminated[t] else soft_value))
    return np.array(rows)


def compare() -> None:
    """The same numbers from rlx.ops."""
    log_prob = log_probs_by_hand()
    target = targets_by_hand(log_prob)
    policy = rlx.ops.TanhNormal(jnp.array(mean)[:, None], jnp.log(scale)[:, None])
    same_log_prob = policy.log_prob(jnp.tanh(u)[:, None])
    soft_value = jnp.minimum(first, second) - ALPHA * same_log_prob
    same = rlx.ops.td_target(jnp.array(reward), jnp.array(terminated), soft_value, DISCOUNT)
    print(f"{'row':>3} {'action':>7} {'log pi':>8} {'rlx.ops':>8} {'target':>8} {'rlx.ops':>8}")
    for t in range(4):
        print(f"{t:3} {np.tanh(u[t]):7.3f} {log_prob[t]:8.4f} {same_log_prob[t]:8.4f} {target[t]:8.4f} {same[t]:8.4f}")
    np.testing.assert_allclose(log_prob, same_log_prob, atol=1e-4)
    np.testing.assert_allclose(target, same, atol=1e-4)
    a, width = np.linspace(-0.9995, 0.9995, 2000, retstep=True)
    density = np.exp(rlx.ops.TanhNormal(jnp.zeros(1), jnp.zeros(1)).log_prob(jnp.array(a)[:, None]))
    print(f"mean target by hand {target.mean():.6f}, by rlx.ops.td_target {same.mean():.6f}")
    print(f"a density over the box: its integral is {np.sum(density) * width:.3f}\n")


# ---------------------------------------------------------------------------------------------------------------------
# The whole algorithm: take a step, keep the row, draw a batch of old rows, teach the critics, move the actor to where
# the lesser critic plus alpha times entropy is highest, and move alpha so that the entropy is what it should be.
# ---------------------------------------------------------------------------------------------------------------------
def learn(updates: int, picture: str) -> None:
    """Swing Pendulum up with three seeds at once, and draw how return, entropy and temperature went."""
    env = rlx.make("Pendulum-v1")
    actor, critic = rlx.nets.soft_actor(env, (64, 64)), rlx.nets.q_critic(env, (64, 64))
    config = rlx.SACConfig(num_envs=4, num_steps=1, gradient_steps=2, batch_size=64, tau=0.01)
    algorithm = rlx.sac(env, actor, critic, optax.adam(2e-3), config)

    keys = jax.random.split(jax.random.key(0), 3)
    states, metrics = jax.jit(jax.vmap(lambda key: rlx.train(algorithm, key, updates)))(keys)
    evaluation_keys = jax.random.split(jax.random.key(1), 3)
    played = jax.jit(jax.vmap(lambda state, key: rlx.evaluate(algorithm, env, state, key)))(states, evaluation_keys)
    for seed, returns in enumerate(played.episode_return):
        entropy = metrics["entropy"][seed, -updates // 4 :].mean()
        print(
            f"seed {seed}: {returns.mean():.0f} greedy, mean of {returns.size} episodes; entropy {entropy:.2f} at last"
        )

    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 3.2), dpi=150, layout="constrained")
    panels = figure.subplots(1, 3)
    titles = "return of training episodes", "entropy, nats in the box (target -1)", "temperature"
    steps = config.prefill + (np.arange(updates) + 1) * config.env_steps
    for axes, title in zip(panels, titles, strict=True):
        axes.set(title=title, xlabel="environment steps")
    for seed in range(3):
        ended = np.asarray(metrics["episodes"][seed]) > 0  # in most updates no episode ends
        panels[0].plot(steps[ended], np.asarray(metrics["episode_return"][seed])[ended], linewidth=0.8)
        panels[1].plot(steps, metrics["entropy"][seed], linewidth=0.3)
        panels[2].semilogy(steps, metrics["temperature"][seed], linewidth=0.8)
    panels[1].axhline(-1.0, color="black", linewidth=0.8)
    figure.savefig(picture)
    print(f"learning curves: {picture}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=4750, help="updates of 4 environment steps each")
    parser.add_argument("--picture", default="sac.png", help="where to save the learning curves")
    arguments = parser.parse_args()
    compare()
    learn(arguments.updates, arguments.picture)
