"""REINFORCE: the policy gradient, and what a baseline takes off its noise.

Run it: `python examples/reinforce.py` (about 15 seconds; it prints as it goes and saves reinforce.png).

1. The question. A policy pi(a|s) should get more reward. But the reward comes out of the world, which has no gradient:
   how can the parameters feel it?

2. The policy gradient. The policy's probabilities do have a gradient, and that is enough:

       grad E[G] = E[ G_t * grad log pi(a_t|s_t) ],       G_t = r_t + discount * r_{t+1} + discount^2 * r_{t+2} + ...

   Make what was done more probable, in proportion to what came of it. Nothing is known of the world but what happened.
   (Williams 1992; Sutton et al. 2000, theorem 1)

3. The baseline. On CartPole every return is above 0: every action is pushed up, the good ones only more so, and which
   are pushed at all is luck. Take off any number b(s) that does not depend on the action:

       E[ b(s) * grad log pi(a|s) ] = b(s) * grad sum_a pi(a|s) = b(s) * grad 1 = 0

   The expected gradient stays, the noise does not. Good choices: the mean return, or better V(s), what to expect here.
"""

import argparse
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

import rlx

# ---------------------------------------------------------------------------------------------------------------------
# Five transitions, by hand: an episode of three steps that terminates, and two steps of the next, which goes on.
# ---------------------------------------------------------------------------------------------------------------------
DISCOUNT = 0.9

reward = np.array([1.0, 0.0, 2.0, 1.0, 1.0])
terminated = np.array([False, False, True, False, False])
truncated = np.zeros(5, bool)
probability = np.array([0.5, 0.25, 0.8, 0.5, 0.6])  # pi(a_t|s_t)
beyond = 3.0  # an estimate of what comes after the last row: it is not 0, as the episode goes on


def loss_by_hand() -> tuple[np.ndarray, float]:
    """Returns from the last row to the first, then what weighs each action's log-probability."""
    returns, following = np.zeros(5), beyond
    for t in reversed(range(5)):
        following = reward[t] + (0.0 if terminated[t] else DISCOUNT * following)
        returns[t] = following
    baseline = returns.mean()
    rows = [-(g - baseline) * np.log(p) for g, p in zip(returns, probability, strict=True)]
    return returns, float(np.mean(rows))


def compare() -> None:
    """The same numbers from rlx.ops."""
    returns, loss = loss_by_hand()
    after, flags = jnp.full(5, beyond), (jnp.array(terminated), jnp.array(truncated))
    same = rlx.ops.reward_to_go(jnp.array(reward), after, *flags, DISCOUNT)
    rows = rlx.ops.policy_gradient_loss(jnp.log(probability), same - same.mean())
    print(f"{'t':>2} {'return':>8} {'rlx.ops':>8} {'loss of the row':>16}")
    for t in range(5):
        print(f"{t:2} {returns[t]:8.4f} {same[t]:8.4f} {rows[t]:16.4f}")
    print(f"mean loss by hand {loss:.6f}, by rlx.ops.policy_gradient_loss {rows.mean():.6f}\n")
    np.testing.assert_allclose(returns, same, rtol=1e-5)
    np.testing.assert_allclose(loss, rows.mean(), rtol=1e-4)


# ---------------------------------------------------------------------------------------------------------------------
# The whole algorithm, with each baseline, and a meter: from one policy, many rollouts; how far do their gradients lie
# from their mean?
# ---------------------------------------------------------------------------------------------------------------------
Baseline = Literal["none", "mean", "value"]
BASELINES: tuple[Baseline, ...] = ("none", "mean", "value")


def make(baseline: Baseline, updates: int) -> tuple[rlx.Algorithm, rlx.nets.ActorCritic, rlx.ReinforceConfig]:
    """REINFORCE on CartPole."""
    env = rlx.make("CartPole-v1")
    network = rlx.nets.actor_critic(env)
    config = rlx.ReinforceConfig(num_envs=8, num_steps=128, baseline=baseline, normalize_advantage=True)
    learning_rate = optax.linear_schedule(3e-3, 0.0, updates)
    optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(learning_rate, eps=1e-5))
    return rlx.reinforce(env, network, optimizer, config), network, config


def gradient_noise(state: rlx.ReinforceState, rollouts: int) -> dict[str, float]:
    """Root mean square distance of one rollout's gradient from the mean, over the mean's norm."""
    envs, (_, network, config) = rlx.vectorize(rlx.make("CartPole-v1"), 8), make("value", 1)
    params = state.learner.params

    def policy(params, key, observation):
        return network.apply(params, observation)[0].sample(key)

    def gradients(key):
        """With each baseline `[3, parameters]`, from the same rollout."""
        _, rows, _ = rlx.rollout(envs, policy, params, state.rollout, key, config.num_steps)

        def actors(baseline):
            loss = lambda p: rlx.reinforce_loss(p, network.apply, rows, 0.99, baseline, 0.0, 0.0, False)[0]  # noqa: E731
            return ravel_pytree(jax.grad(loss)(params))[0]

        return jnp.stack([actors(baseline) for baseline in BASELINES])

    found = rlx.jit(lambda keys: jax.lax.map(gradients, keys))(jax.random.split(jax.random.key(1), rollouts))
    means = found.mean(axis=0)
    noise = jnp.sqrt(jnp.mean(jnp.sum(jnp.square(found - means), axis=-1), axis=0)) / jnp.linalg.norm(means[-1])
    return dict(zip(BASELINES, noise.tolist(), strict=True))


def learn(updates: int, rollouts: int, picture: str) -> None:
    """Balance CartPole's pole with each baseline and four seeds at once; draw how it went, and the noise."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 4.0), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    keys = jax.random.split(jax.random.key(0), 4)
    env = rlx.make("CartPole-v1")
    for baseline in BASELINES:
        algorithm, _, config = make(baseline, updates)
        states, metrics = rlx.jit(jax.vmap(lambda key, algorithm=algorithm: rlx.train(algorithm, key, updates)))(keys)
        play = jax.vmap(lambda state, key, algorithm=algorithm: rlx.evaluate(algorithm, env, state, key, 20))
        returns = rlx.jit(play)(states, keys).episode_return.mean(axis=1)
        print(f"baseline {baseline:5}: {returns.round(1)} of 500, greedy, four seeds")
        episodes = metrics["episodes"].sum(axis=0)
        mean = (metrics["episode_return"] * metrics["episodes"]).sum(axis=0) / episodes.clip(1)
        ended = np.asarray(episodes) > 0
        left.plot((np.arange(updates)[ended] + 1) * config.env_steps, np.asarray(mean)[ended], label=baseline)
    left.set(title="REINFORCE on CartPole-v1, four seeds", xlabel="environment steps", ylabel="return of episodes")
    left.legend(title="baseline")

    algorithm, *_ = make("value", updates)
    state, _ = rlx.jit(lambda key: rlx.train(algorithm, key, max(updates // 8, 1)))(jax.random.key(0))
    noise = gradient_noise(state, rollouts)
    for baseline, number in noise.items():
        print(f"noise of one rollout's gradient with baseline {baseline:5}: {number:5.2f} of the mean's norm")
    right.bar([*noise], [*noise.values()])
    right.set(title="Noise of one rollout's gradient", xlabel="baseline", ylabel="relative to the mean gradient")
    figure.savefig(picture)
    print(f"learning curves and noise: {picture}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=400, help="updates of 1024 environment steps each")
    parser.add_argument("--rollouts", type=int, default=100, help="rollouts of 1024 steps to measure gradients on")
    parser.add_argument("--picture", default="reinforce.png", help="where to save the picture")
    arguments = parser.parse_args()
    compare()
    learn(arguments.updates, arguments.rollouts, arguments.picture)
