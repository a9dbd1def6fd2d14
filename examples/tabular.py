"""Value iteration and Q-learning: the same table, once with a map of the world and once without.

Run it: `python examples/tabular.py` (about 10 seconds; it prints as it goes and saves tabular.png).

1. The question. A frozen lake of 4 x 4 cells; one begins at the top left, the goal (reward 1) is at the bottom right,
   four cells are holes. The ice is slippery: a step goes as meant, or to its left, or to its right, each by one third.
   What is each action worth?

2. Bellman. Worth is what an action pays, plus what the state after it is worth under the best action, discounted:

       Q(s, a) = sum over outcomes of p * (r + discount * max_a' Q(s', a'))       (nothing follows, where it ends)

   Who has the map (every p, r and s') repeats this until nothing moves: value iteration.

3. Watkins. Who has no map has experience: s, a, r, s'. Each is one draw from that sum. So go a little towards it:

       Q(s, a) <- Q(s, a) + step_size * (r + discount * max_a' Q(s', a') - Q(s, a))

   That is Q-learning (Watkins 1989; Sutton and Barto 2018, sections 4.4 and 6.5).
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

import rlx

DISCOUNT, STEP_SIZE = 0.95, 0.5

# ---------------------------------------------------------------------------------------------------------------------
# Five transitions, by hand, in a table of zeros with 16 states and 4 actions. They end three episodes:
# the first reaches the goal, 15; in the second the time is up in state 14 (truncated: state 14 goes on being worth
# something); the third falls into the hole 11.
# ---------------------------------------------------------------------------------------------------------------------
STATE = np.array([13, 14, 13, 10, 10])
ACTION = np.array([2, 2, 2, 1, 2])
REWARD = np.array([0.0, 1.0, 0.0, 0.0, 0.0])
NEXT_STATE = np.array([14, 15, 14, 14, 11])
TERMINATED = np.array([False, True, False, False, True])


def compare() -> None:
    """The five updates by hand, and the same numbers from rlx.ops."""
    by_hand = np.zeros((16, 4))
    table = jnp.zeros((16, 4))
    print(f"{'s':>2} {'a':>2} {'r':>4} {'next':>4} {'target':>7} {'new Q(s, a)':>12} {'rlx.ops':>8}")
    for s, a, r, s2, over in zip(STATE, ACTION, REWARD, NEXT_STATE, TERMINATED, strict=True):
        target = r if over else r + DISCOUNT * max(by_hand[s2])
        by_hand[s, a] = by_hand[s, a] + STEP_SIZE * (target - by_hand[s, a])
        policy, action = jnp.full(4, 0.25), jnp.int32(0)  # what one does in s2 is nothing to Q-learning
        same = rlx.ops.q_learning_target(r, over, table[s2], policy, action, DISCOUNT)
        table = table.at[s, a].add(STEP_SIZE * (same - table[s, a]))
        print(f"{s:2} {a:2} {r:4.0f} {s2:4} {target:7.4f} {by_hand[s, a]:12.4f} {table[s, a]:8.4f}")
    np.testing.assert_allclose(table, by_hand, rtol=1e-5)


def backup_by_hand() -> None:
    """One backup of state 14, as the formula reads, with the goal alone known so far."""
    value = np.zeros(16)
    # from 14, an action to the right goes down (the border: stays), right (15, the goal, reward 1) or up (10)
    by_hand = (0 + DISCOUNT * value[14]) / 3 + 1 / 3 + (0 + DISCOUNT * value[10]) / 3
    q = rlx.ops.action_values(rlx.envs.frozen_lake().mdp, jnp.array(value), DISCOUNT)
    print(f"\nQ(14, right) after the first backup: by hand {by_hand:.4f}, by rlx.ops.action_values {q[14, 2]:.4f}")
    np.testing.assert_allclose(by_hand, q[14, 2], rtol=1e-5)


# ---------------------------------------------------------------------------------------------------------------------
# With the map, and without it.
# ---------------------------------------------------------------------------------------------------------------------
def learn(updates: int, picture: str) -> None:
    """Solve the lake, learn it with four seeds, and draw the values."""
    env = rlx.envs.frozen_lake()
    solution = rlx.ops.value_iteration(env.mdp, DISCOUNT, tolerance=1e-5)
    print(f"value iteration: {solution.iterations} backups; wrong by {solution.error:.0e} at most")

    # It acts at random all the time: the values it learns are those of the best policy all the same (off-policy).
    # The step size falls with the visits to a pair, so that the draws average out.
    config = rlx.TabularConfig(
        num_envs=8, num_steps=100, discount=DISCOUNT, step_size=1.0, step_size_power=0.7, exploration=1.0
    )
    algorithm = rlx.td_control(env, rlx.ops.q_learning_target, config=config)

    def run(key: jax.Array) -> tuple:
        def one(state: rlx.TabularState, _: None) -> tuple:
            state = algorithm.step(state)[0]
            return state, jnp.max(jnp.abs(state.q.max(-1) - solution.value))

        state, errors = jax.lax.scan(one, algorithm.init(key), length=updates)
        return state, errors, rlx.evaluate(algorithm, env, state, jax.random.key(1), 1000).episode_return.mean()

    states, errors, returns = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 4))
    for seed in range(4):
        print(
            f"Q-learning, seed {seed}: wrong by {errors[seed, -1]:.3f}; reaches the goal in {returns[seed]:.0%} of 1000"
        )
    perfect = algorithm._replace(act=lambda state, key, observation: solution.action[observation])
    played = rlx.evaluate(perfect, env, None, jax.random.key(1), 1000).episode_return.mean()
    print(f"the best policy reaches it in {played:.0%} within the 100 steps that it has")

    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.0, 3.4), dpi=150, layout="constrained")
    arrows = ["←", "↓", "→", "↑"]
    tables = {"value iteration": solution.value, "Q-learning, seed 0": states.q[0].max(-1)}
    policies = [solution.action, states.q[0].argmax(-1)]
    for place, ((title, value), action) in enumerate(zip(tables.items(), policies, strict=True)):
        axes = figure.add_subplot(1, 3, place + 1, title=title, xticks=[], yticks=[])
        axes.imshow(np.reshape(value, (4, 4)), vmin=0, vmax=1, cmap="viridis")
        for state, letter in enumerate("".join(rlx.envs.LAKES[4])):
            what = letter if letter in "HG" else f"{arrows[int(action[state])]}\n{value[state]:.2f}"
            axes.text(state % 4, state // 4, what, ha="center", va="center", color="white")
    axes = figure.add_subplot(1, 3, 3, title="largest error of V", xlabel="environment steps", yscale="log")
    axes.plot((np.arange(updates) + 1) * config.env_steps, np.asarray(errors).T, linewidth=0.8)
    figure.savefig(picture)
    print(f"values: {picture}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=500, help="updates of 800 environment steps each")
    parser.add_argument("--picture", default="tabular.png", help="where to save the values")
    arguments = parser.parse_args()
    compare()
    backup_by_hand()
    learn(arguments.updates, arguments.picture)
