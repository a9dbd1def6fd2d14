"""What do the replay and the target network do for DQN? Take each away and see.

Run it: `python examples/dqn_ablations.py` (some minutes; it saves dqn_ablations.png).

Two things hold Q-learning with a network together (Mnih et al. 2015, extended data table 3):

- A replay. Neighbouring rows are nearly the same state; gradient steps on them, in order, pull the network to wherever
  the agent happens to be, and it forgets the rest. Rows drawn at random from a long past do not.
- A target network. In y = r + discount * max Q(s', a') the target is made of what learns: a step that raises Q(s, a)
  raises Q(s', a') too, and so its own target. A copy that is renewed now and then stands still in between.

Here the replay is taken away by letting it hold the rows of the last step alone, and the target network by renewing it
after every gradient step. All else is equal: rows seen, gradient steps, batch, learning rate, exploration. (On a task
as small as CartPole the last step's 128 rows are replay enough: there it is the target network that shows.)
"""

import argparse
import dataclasses

import jax
import numpy as np
import optax

import rlx

ARMS = {
    "replay and target network": {},
    "no target network": {"target_every": 1},
    "no replay": {"replay_size": 128, "prefill": 128},
    "neither": {"replay_size": 128, "prefill": 128, "target_every": 1},
}


def run(changes: dict, steps: int, seeds: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Train some seeds: greedy returns at the end `[S]`; return and mean Q of training `[S, updates]`."""
    env = rlx.make("CartPole-v1")
    network = rlx.nets.q_network(env, (128, 128))
    config = rlx.DQNConfig(
        num_steps=128,
        gradient_steps=64,
        batch_size=64,
        target_every=64,
        replay_size=50_000,
        epsilon_steps=4000,
        n_step=5,
    )
    config = dataclasses.replace(config, **changes)
    updates = (steps - config.prefill) // config.env_steps
    optimizer = optax.adam(optax.linear_schedule(2e-3, 0.0, updates * config.gradient_steps))
    algorithm = rlx.dqn(env, network, optimizer, config)

    @jax.jit
    @jax.vmap
    def train(key):
        key, evaluation_key = jax.random.split(key)
        state, metrics = rlx.train(algorithm, key, updates)
        return rlx.evaluate(algorithm, env, state, evaluation_key, 20).episode_return.mean(), metrics

    final, metrics = train(jax.random.split(jax.random.key(0), seeds))
    returns = np.where(metrics["episodes"] > 0, metrics["episode_return"], np.nan)
    return np.asarray(final), returns, np.asarray(metrics["q_value"])


def main(steps: int, seeds: int, picture: str) -> None:
    """Run every arm and draw."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 4.0), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    left.set(title="DQN on CartPole-v1", xlabel="updates", ylabel="return of training episodes, mean of seeds")
    right.set(title="mean Q(s, a) of the rows learnt from", xlabel="updates", yscale="log")
    print(f"{'':28} greedy return at the end, {seeds} seeds")
    for name, changes in ARMS.items():
        final, returns, values = run(changes, steps, seeds)
        print(f"{name:28} mean {final.mean():6.1f}   " + " ".join(f"{x:5.0f}" for x in np.sort(final)), flush=True)
        seen = np.isfinite(returns).any(axis=0)
        left.plot(np.flatnonzero(seen), np.nanmean(returns[:, seen], axis=0), label=name)
        right.plot(values.mean(axis=0).clip(1e-2), label=name)
    right.axhline(100.0, color="grey", linestyle=":", label="most that can be: 1 / (1 - discount)")
    right.legend(fontsize=7)
    figure.savefig(picture)
    print(f"curves: {picture}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40_000, help="environment steps a seed")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--picture", default="dqn_ablations.png", help="where to save the curves")
    arguments = parser.parse_args()
    main(arguments.steps, arguments.seeds, arguments.picture)
