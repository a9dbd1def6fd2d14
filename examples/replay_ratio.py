"""Off-policy against on-policy: what happens when old rows are learnt from again and again?

Run it: `python examples/replay_ratio.py` (some minutes; it saves replay_ratio.png).

Q-learning asks of a row only what the world did: (s, a) led to r and s'. That stays true whoever acted, so a row may be
learnt from many times, long after the policy has changed: it is off-policy. More gradient steps per environment step
should then mean more learnt from the same experience, up to where the network fits old targets too well.

The policy gradient asks what the *policy* did: the mean of A * grad log pi(a|s) is its gradient only where actions were
drawn from pi. After one step the rows are a little old, after twenty they are another policy's: it is on-policy. PPO's
clip is what makes a few passes over the same rows safe; without it (clip = 10^6 here) they are not.

So both get the same environment steps and more and more gradient steps a row. Mean returns of 5 seeds each, of 500:

    passes over a row           1     4    16    64
    DQN                        43    77   138   373     the more the better
    policy gradient, no clip  419   304   330   196     the more the worse, and seeds that end at 9
    PPO, clip 0.2             360   386   500   500     safe
"""

import argparse

import jax
import numpy as np
import optax

import rlx

RATIOS = (1, 4, 16, 64)


def evaluated(algorithm, env, updates: int, seeds: int) -> np.ndarray:
    """Train some seeds and play 20 greedy episodes with each: mean returns `[S]`."""

    @jax.jit
    @jax.vmap
    def run(key):
        key, evaluation_key = jax.random.split(key)
        state, _ = rlx.train(algorithm, key, updates)
        return rlx.evaluate(algorithm, env, state, evaluation_key, 20).episode_return.mean()

    return np.asarray(run(jax.random.split(jax.random.key(0), seeds)))


def dqn(ratio: int, steps: int, seeds: int) -> np.ndarray:
    """Each row is learnt from `ratio` times on average, drawn from the replay."""
    env = rlx.make("CartPole-v1")
    config = rlx.DQNConfig(
        num_steps=64, gradient_steps=ratio, batch_size=64, target_every=64, epsilon_steps=4000, prefill=512, n_step=5
    )
    algorithm = rlx.dqn(env, rlx.nets.q_network(env, (64, 64)), optax.adam(1e-3), config)
    return evaluated(algorithm, env, (steps - config.prefill) // config.env_steps, seeds)


def actor_critic(ratio: int, steps: int, seeds: int, clip: float) -> np.ndarray:
    """`ratio` passes over every rollout, then its rows are dropped."""
    env = rlx.make("CartPole-v1")
    config = rlx.PPOConfig(num_envs=8, num_steps=64, num_epochs=ratio, num_minibatches=4, clip=clip)
    algorithm = rlx.ppo(env, rlx.nets.actor_critic(env), optax.adam(1e-3), config)
    return evaluated(algorithm, env, steps // config.env_steps, seeds)


ARMS = {
    "DQN (off-policy)": dqn,
    "policy gradient, no clip": lambda *args: actor_critic(*args, clip=1e6),
    "PPO (clip 0.2)": lambda *args: actor_critic(*args, clip=0.2),
}


def main(steps: int, seeds: int, ratios: tuple[int, ...], picture: str) -> None:
    """Run every arm and draw."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), dpi=150, layout="constrained")
    axes = figure.add_subplot(
        title=f"CartPole-v1 after {steps:,} environment steps",
        xlabel="times that each row is learnt from",
        ylabel="greedy return, mean and range of seeds",
        xscale="log",
    )
    for name, arm in ARMS.items():
        finals = [arm(ratio, steps, seeds) for ratio in ratios]
        for ratio, final in zip(ratios, finals, strict=True):
            print(f"{name:26} {ratio:3} times: mean {final.mean():6.1f}, seeds {final.min():.0f} to {final.max():.0f}")
        mean, low, high = (np.array([f(final) for final in finals]) for f in (np.mean, np.min, np.max))
        axes.errorbar(ratios, mean, (mean - low, high - mean), marker="o", capsize=3, label=name)
    axes.legend(fontsize=7)
    figure.savefig(picture)
    print(f"picture: {picture}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000, help="environment steps a seed")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--ratios", type=int, nargs="+", default=RATIOS)
    parser.add_argument("--picture", default="replay_ratio.png", help="where to save the picture")
    arguments = parser.parse_args()
    main(arguments.steps, arguments.seeds, tuple(arguments.ratios), arguments.picture)
