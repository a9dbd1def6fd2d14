"""Proximal policy optimisation, from ten transitions to a balanced pole.

Run it: `python examples/ppo.py` (about 10 seconds; it prints as it goes and saves ppo.png).

1. The question. A policy pi(a|s) has acted; each action turned out better or worse than expected: its advantage A is
   above or below 0. The policy gradient raises the log-probability of an action in proportion to A. The data are good
   for one small step only: once pi has moved, they are another policy's data. Can we take several steps on them?

2. The surrogate. Weigh each row by how much more likely its action has become, ratio = pi(a|s) / pi_old(a|s).
   E_old[ratio * A] is the expected advantage of pi under the old policy's states; its gradient at pi = pi_old is the
   policy gradient. But far away it lies: nothing stops the ratio of one lucky action from growing without end.

3. The clip. PPO takes the gain away once the ratio has left [1 - clip, 1 + clip] in the direction that pays:

       L = -mean( min( ratio * A, clip(ratio, 1 - clip, 1 + clip) * A ) )

   The minimum makes it a lower bound. A good action (A > 0) stops being pushed up at ratio 1 + clip; a bad one (A < 0)
   stops being pushed down at 1 - clip; a ratio that has gone the wrong way is always brought back.
   (Schulman et al. 2017, https://arxiv.org/abs/1707.06347, equation 7)
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rlx

# ---------------------------------------------------------------------------------------------------------------------
# Ten transitions, by hand. Two episodes follow one another: the first terminates at t = 3 (the pole fell: nothing
# comes after), the second is truncated at t = 7 (time was up: it would have gone on), the third is still running.
# ---------------------------------------------------------------------------------------------------------------------
DISCOUNT, TRACE, CLIP = 0.9, 0.8, 0.2

reward = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
value = np.array([3.0, 2.5, 2.0, 1.5, 5.0, 5.5, 6.0, 6.0, 4.0, 4.5])  # what the critic said of s_t
next_value = np.array([2.5, 2.0, 1.5, 0.5, 5.5, 6.0, 6.0, 5.8, 4.5, 5.0])  # ... and of the true s_{t+1}
terminated = np.array([0, 0, 0, 1, 0, 0, 0, 0, 0, 0], bool)
truncated = np.array([0, 0, 0, 0, 0, 0, 0, 1, 0, 0], bool)
old_probability = np.array([0.5, 0.6, 0.7, 0.5, 0.4, 0.8, 0.5, 0.5, 0.9, 0.6])  # pi_old(a_t|s_t)
probability = np.array([0.55, 0.5, 0.7, 0.3, 0.6, 0.9, 0.4, 0.5, 0.95, 0.8])  # pi(a_t|s_t), some updates later


def advantages_by_hand() -> np.ndarray:
    """A_t = delta_t + discount * trace * A_{t+1}, from the last row to the first (generalised advantage estimation)."""
    advantage, following = np.zeros(10), 0.0
    for t in reversed(range(10)):
        bootstrap = (
            0.0 if terminated[t] else next_value[t]
        )  # after a fall there is nothing; after a time limit there is
        delta = reward[t] + DISCOUNT * bootstrap - value[t]
        if terminated[t] or truncated[t]:
            following = 0.0  # the next row belongs to another episode
        following = delta + DISCOUNT * TRACE * following
        advantage[t] = following
    return advantage


def loss_by_hand(advantage: np.ndarray) -> float:
    """Row by row, as the formula reads."""
    rows = []
    for new, old, a in zip(probability, old_probability, advantage, strict=True):
        ratio = new / old
        clipped = min(max(ratio, 1 - CLIP), 1 + CLIP)
        rows.append(-min(ratio * a, clipped * a))
    return float(np.mean(rows))


def compare() -> None:
    """The same numbers from rlx.ops."""
    advantage = advantages_by_hand()
    flags = jnp.array(terminated), jnp.array(truncated)
    same = rlx.ops.gae(jnp.array(reward), jnp.array(value), jnp.array(next_value), *flags, DISCOUNT, TRACE)
    losses = rlx.ops.clipped_surrogate(jnp.log(probability), jnp.log(old_probability), same, CLIP)
    print(f"{'t':>2} {'advantage':>10} {'rlx.ops.gae':>12} {'ratio':>6} {'loss of the row':>16}")
    for t in range(10):
        ratio = probability[t] / old_probability[t]
        print(f"{t:2} {advantage[t]:10.4f} {same[t]:12.4f} {ratio:6.2f} {losses[t]:16.4f}")
    print(f"mean loss by hand {loss_by_hand(advantage):.6f}, by rlx.ops.clipped_surrogate {losses.mean():.6f}\n")
    np.testing.assert_allclose(advantage, same, atol=1e-5)
    np.testing.assert_allclose(loss_by_hand(advantage), losses.mean(), rtol=1e-5)


# ---------------------------------------------------------------------------------------------------------------------
# The whole algorithm: act for a while, estimate advantages, take several clipped steps, forget the data, repeat.
# Beside the surrogate the loss holds the critic's squared error and, if wanted, a bonus for entropy.
# ---------------------------------------------------------------------------------------------------------------------
def learn(updates: int, picture: str) -> None:
    """Balance CartPole's pole with four seeds at once, and draw how it went."""
    env = rlx.make("CartPole-v1")
    network = rlx.nets.actor_critic(env)
    config = rlx.PPOConfig(num_envs=8, num_steps=128, num_epochs=10, num_minibatches=8)
    gradient_steps = updates * config.num_epochs * config.num_minibatches
    learning_rate = optax.linear_schedule(1e-3, 0.0, gradient_steps)  # smaller and smaller steps, so that it settles
    optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(learning_rate, eps=1e-5))
    algorithm = rlx.ppo(env, network, optimizer, config)

    keys = jax.random.split(jax.random.key(0), 4)
    states, metrics = jax.jit(jax.vmap(lambda key: rlx.train(algorithm, key, updates)))(keys)
    evaluation_keys = jax.random.split(jax.random.key(1), 4)
    played = jax.jit(jax.vmap(lambda state, key: rlx.evaluate(algorithm, env, state, key)))(states, evaluation_keys)
    for seed, returns in enumerate(played.episode_return):
        print(f"seed {seed}: {returns.mean():.1f} of 500, greedy, mean of {returns.size} episodes")

    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), dpi=150, layout="constrained")
    axes = figure.add_subplot(
        title="PPO on CartPole-v1", xlabel="environment steps", ylabel="return of training episodes"
    )
    for episodes, mean in zip(metrics["episodes"], metrics["episode_return"], strict=True):
        ended = np.asarray(episodes) > 0  # in some updates no episode ends: they have no return to show
        axes.plot((np.arange(updates)[ended] + 1) * config.env_steps, np.asarray(mean)[ended], linewidth=0.8)
    figure.savefig(picture)
    print(f"learning curves: {picture}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=97, help="updates of 1024 environment steps each")
    parser.add_argument("--picture", default="ppo.png", help="where to save the learning curves")
    arguments = parser.parse_args()
    compare()
    learn(arguments.updates, arguments.picture)
