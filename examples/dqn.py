"""Deep Q-learning, from eight transitions to a balanced pole.

Run it: `python examples/dqn.py` (about a minute; it prints as it goes and saves dqn.png).

1. The question. Q(s, a) is the discounted return of doing a in s and the best from there on. If it were known, acting
   would be easy: take the largest. How can it be learnt from single steps (s, a, r, s'), whoever took them?

2. The TD target. The best return from s on begins with r and goes on with the best from s':

       y = r + discount * max_a' Q(s', a')          but y = r where the task ended: nothing follows

   Bellman's equation says that the right Q is the one whose values equal their targets. So take a step that makes the
   error y - Q(s, a) smaller, and hold y still while doing so. Mind the two ways in which an episode ends: after a fall
   there is nothing; after a time limit the episode would have gone on, so its last row has a bootstrap like any other.

3. What holds it together. Neighbouring rows are alike, and the target moves with what learns. So rows are kept in a
   replay and drawn at random, and the targets come from a copy of the network that is renewed now and then.
   (Mnih et al. 2015, https://doi.org/10.1038/nature14236)

4. The maximum is too hopeful: of several noisy values the largest is, on average, larger than the largest true one.
   Double Q-learning lets one network choose a' and the other value it. (van Hasselt et al. 2015,
   https://arxiv.org/abs/1509.06461)
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rlx

# ---------------------------------------------------------------------------------------------------------------------
# Eight transitions, by hand: two actions, so each row of values has two numbers. The third row terminates (a fall), the
# sixth is truncated (time was up).
# ---------------------------------------------------------------------------------------------------------------------
DISCOUNT, DELTA = 0.9, 1.0

action = np.array([0, 1, 1, 0, 1, 0, 0, 1])
reward = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
terminated = np.array([0, 0, 1, 0, 0, 0, 0, 0], bool)
truncated = np.array([0, 0, 0, 0, 0, 1, 0, 0], bool)
values = np.array([[3.0, 2.0], [2.0, 1.5], [1.0, 0.5], [5.0, 5.2], [4.8, 5.1], [5.0, 4.9], [3.3, 3.0], [2.9, 3.1]])
next_values = np.array([[2.1, 2.4], [1.2, 0.7], [4.0, 4.0], [4.9, 5.2], [5.3, 4.7], [5.2, 5.0], [3.0, 3.4], [2.5, 2.8]])
next_online = np.array([[2.5, 2.2], [1.0, 0.9], [3.0, 5.0], [5.0, 5.1], [4.6, 5.4], [5.1, 5.3], [3.2, 3.1], [2.6, 2.9]])


def targets_by_hand(double: bool) -> np.ndarray:
    """y of every row: `next_values` are the target network's, `next_online` those of the network that learns."""
    rows = []
    for t in range(8):
        if terminated[t]:
            rows.append(reward[t])
            continue
        judge = next_online[t] if double else next_values[t]
        best = 0 if judge[0] >= judge[1] else 1
        rows.append(reward[t] + DISCOUNT * next_values[t][best])
    return np.array(rows)


def loss_by_hand(target: np.ndarray) -> float:
    """Half the squared error, a straight line beyond an error of 1 (Huber)."""
    rows = []
    for t in range(8):
        error = abs(target[t] - values[t][action[t]])
        rows.append(0.5 * error**2 if error <= DELTA else DELTA * (error - 0.5 * DELTA))
    return float(np.mean(rows))


def compare() -> None:
    """The same numbers from rlx.ops."""
    value = rlx.ops.select_action(jnp.array(values), jnp.array(action))
    print(f"{'t':>2} {'Q(s, a)':>8} {'target':>8} {'by rlx.ops':>11} {'double':>8} {'by rlx.ops':>11}")
    columns, losses = [], []
    for double in (False, True):
        best = jnp.argmax(jnp.array(next_online if double else next_values), axis=-1)
        following = rlx.ops.select_action(jnp.array(next_values), best)
        same = rlx.ops.td_target(jnp.array(reward), jnp.array(terminated), following, DISCOUNT)
        np.testing.assert_allclose(targets_by_hand(double), same, rtol=1e-5)
        columns += [targets_by_hand(double), same]
        losses.append((loss_by_hand(targets_by_hand(double)), float(rlx.ops.huber(same - value, DELTA).mean())))
    for t, (mine, same, mine_double, same_double) in enumerate(zip(*columns, strict=True)):
        print(f"{t:2} {value[t]:8.2f} {mine:8.2f} {same:11.2f} {mine_double:8.2f} {same_double:11.2f}")
    for name, (mine, same) in zip(("mean loss", "mean loss, double"), losses, strict=True):
        print(f"{name} by hand {mine:.6f}, by rlx.ops.huber {same:.6f}")
        np.testing.assert_allclose(mine, same, rtol=1e-5)


# ---------------------------------------------------------------------------------------------------------------------
# The whole algorithm: act epsilon-greedily for a while, put the rows into the replay, take gradient steps on rows drawn
# from it, renew the target network now and then, repeat.
# ---------------------------------------------------------------------------------------------------------------------
def learn(steps: int, picture: str) -> None:
    """Balance CartPole's pole with four seeds at once, and draw how it went."""
    env = rlx.make("CartPole-v1")
    network = rlx.nets.q_network(env, (128, 128), dueling=True)  # V(s) and the advantages of actions apart
    config = rlx.DQNConfig(
        num_steps=128,
        gradient_steps=64,
        batch_size=64,
        n_step=5,  # five rewards before the bootstrap: what is learnt late reaches back sooner
        target_every=128,
        prefill=min(1000, steps // 2),
        epsilon_steps=4000,
        epsilon_end=0.04,
    )
    updates = (steps - config.prefill) // config.env_steps
    learning_rate = optax.linear_schedule(2.3e-3, 0.0, updates * config.gradient_steps)
    optimizer = optax.chain(optax.clip_by_global_norm(10.0), optax.adam(learning_rate, eps=1e-5))
    algorithm = rlx.dqn(env, network, optimizer, config)

    keys = jax.random.split(jax.random.key(0), 4)
    states, metrics = jax.jit(jax.vmap(lambda key: rlx.train(algorithm, key, updates)))(keys)
    evaluation_keys = jax.random.split(jax.random.key(1), 4)
    played = jax.jit(jax.vmap(lambda state, key: rlx.evaluate(algorithm, env, state, key)))(states, evaluation_keys)
    for seed, returns in enumerate(played.episode_return):
        print(f"seed {seed}: {returns.mean():.1f} of 500, greedy, mean of {returns.size} episodes")

    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 4.0), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    left.set(title="DQN on CartPole-v1", xlabel="environment steps", ylabel="return of training episodes")
    right.set(title="mean Q(s, a) of the rows learnt from", xlabel="environment steps")
    at = config.prefill + (np.arange(updates) + 1) * config.env_steps
    for episodes, mean, value in zip(*(metrics[m] for m in ("episodes", "episode_return", "q_value")), strict=True):
        ended = np.asarray(episodes) > 0  # in some updates no episode ends: they have no return to show
        left.plot(at[ended], np.asarray(mean)[ended], linewidth=0.8)
        right.plot(at, value, linewidth=0.8)
    right.axhline(
        1 / (1 - config.discount), color="grey", linestyle=":", label="a pole that never falls: 1 / (1 - discount)"
    )
    right.legend(fontsize=7)
    figure.savefig(picture)
    print(f"learning curves: {picture}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50_000, help="environment steps a seed")
    parser.add_argument("--picture", default="dqn.png", help="where to save the learning curves")
    arguments = parser.parse_args()
    compare()
    learn(arguments.steps, arguments.picture)
