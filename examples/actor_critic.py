"""Actor-critic (A2C): why a policy wants a critic beside it.

Run it: `python examples/actor_critic.py` (about 15 seconds; it prints as it goes and saves actor_critic.png).

1. The question. REINFORCE waits for the episode's end and credits every action with all that came after it, lucky or
   not. Two actions that are equally good get returns far apart. Can we judge an action sooner, and by itself?

2. The critic. V(s) says what to expect of a state. One step later we know more: a reward, and V of where we are. The
   difference is the temporal-difference error

       delta_t = r_t + discount * V(s_{t+1}) - V(s_t)

   the surprise of one step, whose expectation is the advantage A(s_t, a_t) if V is right. It is noisy by one step only.
   But V is not right at first: it is biased. Summing the next errors too, with weights (discount * trace)^k, goes from
   one step (trace = 0: little noise, all of the bias) to the whole return (trace = 1: no bias, all of the noise).
   (Schulman et al. 2015, https://arxiv.org/abs/1506.02438, equation 16)

3. The loss. The actor follows the advantages, the critic follows what they said V should have been:

       loss = mean( -A_t log pi(a_t|s_t) ) + value_coef * mean( 1/2 (V(s_t) - (A_t + V(s_t) as a number))^2 )

   One gradient step, and the rows are dropped. (Mnih et al. 2016, https://arxiv.org/abs/1602.01783, algorithm S3)
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

import rlx

# ---------------------------------------------------------------------------------------------------------------------
# Four transitions, by hand: the third ends the task, the fourth begins another episode, which goes on.
# ---------------------------------------------------------------------------------------------------------------------
DISCOUNT, TRACE, VALUE_COEF = 0.9, 0.8, 0.5

reward = np.array([1.0, 0.0, 2.0, 1.0])
value = np.array([2.0, 1.5, 1.0, 3.0])  # V(s_t)
next_value = np.array([1.5, 1.0, 9.9, 2.0])  # V(s_{t+1}); after the end of the task nobody looks at it
terminated = np.array([False, False, True, False])
truncated = np.array([False, False, False, False])
probability = np.array([0.5, 0.25, 0.8, 0.5])  # pi(a_t|s_t)


def loss_by_hand() -> tuple[np.ndarray, float]:
    """Errors, advantages from the last row to the first, then the two terms."""
    advantage, following = np.zeros(4), 0.0
    for t in reversed(range(4)):
        bootstrap = 0.0 if terminated[t] else next_value[t]
        delta = reward[t] + DISCOUNT * bootstrap - value[t]
        following = delta + (0.0 if terminated[t] else DISCOUNT * TRACE * following)
        advantage[t] = following
    actor = np.mean([-a * np.log(p) for a, p in zip(advantage, probability, strict=True)])
    critic = np.mean([0.5 * (v - (a + v)) ** 2 for a, v in zip(advantage, value, strict=True)])
    return advantage, float(actor + VALUE_COEF * critic)


def compare() -> None:
    """The same numbers from rlx.ops."""
    advantage, loss = loss_by_hand()
    flags = jnp.array(terminated), jnp.array(truncated)
    same = rlx.ops.gae(jnp.array(reward), jnp.array(value), jnp.array(next_value), *flags, DISCOUNT, TRACE)
    actor = rlx.ops.policy_gradient_loss(jnp.log(probability), same)
    both = jnp.mean(actor) + VALUE_COEF * jnp.mean(0.5 * jnp.square(same))
    print(f"{'t':>2} {'advantage':>10} {'rlx.ops.gae':>12} {'actor loss of the row':>22}")
    for t in range(4):
        print(f"{t:2} {advantage[t]:10.4f} {same[t]:12.4f} {actor[t]:22.4f}")
    print(f"loss by hand {loss:.6f}, by rlx.ops {both:.6f}\n")
    np.testing.assert_allclose(advantage, same, atol=1e-5)
    np.testing.assert_allclose(loss, both, rtol=1e-5)


# ---------------------------------------------------------------------------------------------------------------------
# Bias and noise, measured. After some learning the critic knows something. From the same policy and critic many
# rollouts are drawn; how far do their gradients lie apart, at each trace, and how far is their mean from trace = 1's?
# ---------------------------------------------------------------------------------------------------------------------
TRACES = (0.0, 0.5, 0.8, 0.95, 1.0)


def measure(updates: int, rollouts: int) -> dict[float, tuple[float, float]]:
    """For each trace: noise (root mean square distance of a gradient from the mean) and bias, over the mean's norm."""
    env = rlx.make("CartPole-v1")
    network = rlx.nets.actor_critic(env)
    config = rlx.A2CConfig(num_envs=8, num_steps=128)
    algorithm = rlx.a2c(env, network, optax.adam(3e-3), config)
    state, _ = rlx.jit(lambda key: rlx.train(algorithm, key, updates))(jax.random.key(0))
    params, envs = state.learner.params, rlx.vectorize(env, config.num_envs)

    def policy(params, key, observation):
        return network.apply(params, observation)[0].sample(key)

    def gradients(key):
        """The actor's gradient at each trace `[traces, parameters]`, from one rollout."""
        _, rows, _ = rlx.rollout(envs, policy, params, state.rollout, key, config.num_steps)

        def actors(trace):
            slopes = jax.grad(lambda p: rlx.a2c_loss(p, network.apply, rows, 0.99, trace, 0.0, 0.0, False)[0])(params)
            return ravel_pytree(slopes)[0]

        return jax.vmap(actors)(jnp.array(TRACES))

    found = rlx.jit(lambda keys: jax.lax.map(gradients, keys))(jax.random.split(jax.random.key(1), rollouts))
    means = found.mean(axis=0)
    unbiased = jnp.linalg.norm(means[-1])
    noise = jnp.sqrt(jnp.mean(jnp.sum(jnp.square(found - means), axis=-1), axis=0)) / unbiased
    bias = jnp.linalg.norm(means - means[-1], axis=-1) / unbiased
    return {trace: (float(n), float(b)) for trace, n, b in zip(TRACES, noise, bias, strict=True)}


def learn(updates: int, measured: dict[float, tuple[float, float]], picture: str) -> None:
    """Balance CartPole's pole with four seeds at once, and draw how it went beside what was measured."""
    env = rlx.make("CartPole-v1")
    config = rlx.A2CConfig(num_envs=8, num_steps=8)
    learning_rate = optax.linear_schedule(1e-3, 0.0, updates)  # smaller and smaller steps, so that it settles
    optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(learning_rate, eps=1e-5))
    algorithm = rlx.a2c(env, rlx.nets.actor_critic(env), optimizer, config)
    keys = jax.random.split(jax.random.key(0), 4)
    states, metrics = rlx.jit(jax.vmap(lambda key: rlx.train(algorithm, key, updates)))(keys)
    played = rlx.jit(jax.vmap(lambda state, key: rlx.evaluate(algorithm, env, state, key)))(states, keys)
    for seed, returns in enumerate(played.episode_return):
        print(f"seed {seed}: {returns.mean():.1f} of 500, greedy, mean of {returns.size} episodes")

    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 4.0), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    left.set(title="A2C on CartPole-v1", xlabel="environment steps", ylabel="return of training episodes")
    for episodes, mean in zip(metrics["episodes"], metrics["episode_return"], strict=True):
        ended = np.asarray(episodes) > 0  # in many updates no episode ends: they have no return to show
        left.plot((np.arange(updates)[ended] + 1) * config.env_steps, np.asarray(mean)[ended], linewidth=0.5)
    right.set(title="One rollout's gradient, early on", xlabel="trace (lambda)", ylabel="relative to the mean gradient")
    right.plot(TRACES, [noise for noise, _ in measured.values()], marker="o", label="noise")
    right.plot(TRACES, [bias for _, bias in measured.values()], marker="o", label="distance of the mean from trace 1's")
    right.legend()
    figure.savefig(picture)
    print(f"learning curves, bias and noise: {picture}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=7000, help="updates of 64 environment steps each")
    parser.add_argument("--rollouts", type=int, default=100, help="rollouts of 1024 steps to measure gradients on")
    parser.add_argument("--picture", default="actor_critic.png", help="where to save the picture")
    arguments = parser.parse_args()
    compare()
    measured = measure(arguments.updates // 100, arguments.rollouts)
    for trace, (noise, bias) in measured.items():
        print(f"trace {trace:4}: noise of a gradient {noise:5.2f}, distance of its mean from trace 1's {bias:5.2f}")
    learn(arguments.updates, measured, arguments.picture)
