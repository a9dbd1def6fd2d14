"""Why has SARSA no max? A cliff shows it: each learns the truth, but about another policy.

Run it: `python examples/sarsa_and_q_learning.py` (about 20 seconds; it prints as it goes and saves
sarsa_and_q_learning.png).

1. The question. Q-learning goes towards r + discount * max_a' Q(s', a'); SARSA towards r + discount * Q(s', a'), with
   the action a' that it really takes next. Now and then that action is a random one, to explore, and a bad one. Would
   it not be better to reckon with the best?

2. It depends on what Q is to mean. The max asks: what is it worth to do a here, *and the best for ever after*? That is
   the value of a policy that nobody follows as long as one explores. Without a max it is: what is it worth to do a
   here, *and then go on as I do*, stumbles included?

3. The cliff (Sutton and Barto 2018, example 6.6). From one end to the other it is 13 steps along the edge; each costs
   1, a fall 100 and the way back to the start. Who explores with epsilon = 0.1 takes a random step in ten, and along
   the edge one in four of those falls. Q-learning learns that the edge is best, which is true, if one never stumbles;
   and falls off it. SARSA learns that the edge is dear, which is true, as it does stumble; and walks along the top.

   In the end, without exploration, the edge is better: off-policy learning knows the best policy while it does
   something else; on-policy learning does well while it learns. Expected SARSA is SARSA without the luck of the draw.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

import rlx

# ---------------------------------------------------------------------------------------------------------------------
# One step by hand, on the edge: from state 24 (above the start) the learner has gone right to 25, the cliff below it.
# There it would go right again (-11 to go), but draws a random action: down (a fall: -100 and all the way again).
# ---------------------------------------------------------------------------------------------------------------------
NEXT_Q = np.array([-13.0, -11.0, -113.0, -13.0])  # up, right, down, left
EPSILON, DRAWN = 0.1, 2


def compare() -> None:
    """The three targets by hand, and the same numbers from rlx.ops."""
    policy = np.full(4, EPSILON / 4) + (1 - EPSILON) * np.eye(4)[1]  # 92.5 % right, 2.5 % each other
    by_hand = {
        "Q-learning": -1 + max(NEXT_Q),
        "SARSA": -1 + NEXT_Q[DRAWN],
        "expected SARSA": -1 + sum(policy * NEXT_Q),
    }
    row = (jnp.float32(-1.0), jnp.zeros((), bool), jnp.array(NEXT_Q), jnp.array(policy), jnp.int32(DRAWN), 1.0)
    print(f"{'target':16} {'by hand':>8} {'rlx.ops':>8}")
    for name, target in TARGETS.items():
        print(f"{name:16} {by_hand[name]:8.2f} {target(*row):8.2f}")
        np.testing.assert_allclose(by_hand[name], target(*row), rtol=1e-5)
    print("SARSA's draw is a fall once in 40 times: on average it says what expected SARSA says\n")


TARGETS = {
    "Q-learning": rlx.ops.q_learning_target,
    "SARSA": rlx.ops.sarsa_target,
    "expected SARSA": rlx.ops.expected_sarsa_target,
}


def path(q: np.ndarray) -> list[int]:
    """States that the greedy policy goes through; it may go round in circles, until it is stopped."""
    mdp = rlx.envs.cliff_walking().mdp
    states = [36]
    while states[-1] != 47 and len(states) < 40:
        states.append(int(mdp.next_state[states[-1], int(q[states[-1]].argmax()), 0]))
    return states


def learn(updates: int, seeds: int, picture: str) -> None:
    """Walk along the cliff with each target, and draw the returns and the paths."""
    from matplotlib.figure import Figure

    # Episodes are cut off (truncated, not terminated) after 200 steps: the first ones wander, and the greedy policy of
    # a table that is not learned may never end.
    env = rlx.envs.cliff_walking(max_steps=200)
    config = rlx.TabularConfig(num_steps=200, discount=1.0, step_size=0.2, exploration=EPSILON)
    keys = jax.random.split(jax.random.key(0), seeds)
    figure = Figure(figsize=(9.0, 3.6), dpi=150, layout="constrained")
    curves, map_ = figure.subplots(1, 2)

    for place, (name, target) in enumerate(TARGETS.items()):
        algorithm = rlx.td_control(env, target, rlx.ops.epsilon_policy, config)
        states, metrics = jax.jit(jax.vmap(lambda key, algorithm=algorithm: rlx.train(algorithm, key, updates)))(keys)
        episodes, returns = np.asarray(metrics["episodes"]), np.asarray(metrics["episode_return"])  # [seeds, updates]
        late = slice(updates // 2, None)
        online = (episodes * returns)[:, late].sum(1) / episodes[:, late].sum(1).clip(1)  # [seeds]
        played = jax.jit(
            jax.vmap(lambda state, algorithm=algorithm: rlx.evaluate(algorithm, env, state, jax.random.key(1), 1))
        )(states)
        greedy = np.asarray(played.episode_return)[:, 0]
        print(
            f"{name:15} while it learns {online.mean():7.1f} (sd over seeds {online.std():.1f}), "
            f"greedy {np.median(greedy):6.1f} (from {greedy.min():.0f} to {greedy.max():.0f}), {seeds} seeds"
        )
        mean = (episodes * returns).sum(0) / episodes.sum(0).clip(1)
        steps = (np.arange(updates) + 1) * config.env_steps
        ended = episodes.sum(0) > 0
        curves.plot(steps[ended], mean[ended], linewidth=0.9, label=name)
        best = int(np.argsort(greedy)[seeds // 2])  # the seed in the middle
        row, column = np.divmod(path(np.asarray(states.q[best])), 12)
        map_.plot(column + 0.08 * (place - 1), row + 0.08 * (place - 1), marker=".", label=name)

    curves.set(title=f"mean return of {seeds} seeds, exploring", xlabel="environment steps", ylim=(-150, 0))
    curves.legend()
    map_.set(title="greedy paths in the end", xlim=(-0.5, 11.5), ylim=(3.5, -0.5), aspect="equal", yticks=range(4))
    map_.fill_between([0.5, 10.5], 2.5, 3.5, color="0.7")
    map_.text(5.5, 3.0, "the cliff", ha="center", va="center")
    figure.savefig(picture)
    print(f"returns and paths: {picture}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=150, help="updates of 200 environment steps each")
    parser.add_argument("--seeds", type=int, default=50, help="runs of each learner")
    parser.add_argument("--picture", default="sarsa_and_q_learning.png", help="where to save the curves and the paths")
    arguments = parser.parse_args()
    compare()
    learn(arguments.updates, arguments.seeds, arguments.picture)
