"""Trust region policy optimisation, one step by hand, then a balanced pole.

Run it: `python examples/trpo.py` (about 25 seconds; it prints as it goes and saves trpo.png).

1. The question. The policy gradient says which way, not how far. A step in the parameters that is small for one policy
   ruins another: what counts is how much the *behaviour* changes. Can we take the longest step that changes it by no
   more than we allow?

2. The trust region. Measure the change by the mean KL divergence from the old policy, and ask for

       maximise  E[ pi(a|s) / pi_old(a|s) * A ]      such that   mean KL(pi_old || pi) <= delta

   Near pi_old the objective is a slope, g^T x, and the KL a bowl, 1/2 x^T F x, where F is the Fisher matrix, the KL's
   Hessian. The best x is along the natural gradient, and its length uses the whole of delta:

       x = sqrt(2 delta / (g^T F^-1 g)) F^-1 g

   It does not depend on how the policy is parametrised: the bowl is that of the behaviour.

3. Without the matrix. F has as many rows as there are parameters. Conjugate gradient solves F x = g from products F v
   alone, and each costs about as much as a gradient. Slope and bowl are approximations, so the step is tried and made
   shorter until the true KL is within delta and the true objective has grown. Where no step does, none is taken.
   (Schulman et al. 2015, https://arxiv.org/abs/1502.05477, section 6 and appendix C)
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rlx

# ---------------------------------------------------------------------------------------------------------------------
# One step by hand: a softmax over three actions, one state, whose parameters are the logits. Six actions were drawn.
# ---------------------------------------------------------------------------------------------------------------------
DELTA, DAMPING, SHRINK = 0.2, 0.01, 0.8

logits = np.array([2.0, 0.0, -1.0])
action = np.array([0, 0, 0, 1, 2, 2])
advantage = np.array([-0.5, 0.2, -0.9, 1.0, 0.6, 0.8])


def softmax(x: np.ndarray) -> np.ndarray:
    """Probabilities of the three actions."""
    return np.exp(x) / np.exp(x).sum()


def surrogate_and_kl(new: np.ndarray) -> tuple[float, float]:
    """The objective, and how far the behaviour is from the old one."""
    p, old = softmax(new), softmax(logits)
    return float(np.mean(p[action] / old[action] * advantage)), float(old @ np.log(old / p))


def step_by_hand() -> np.ndarray:
    """Slope, bowl, natural gradient, line search."""
    p = softmax(logits)
    slope = np.mean([a * (np.eye(3)[i] - p) for i, a in zip(action, advantage, strict=True)], axis=0)
    fisher = np.diag(p) - np.outer(p, p)
    bowl = fisher + DAMPING * np.eye(3)  # F alone is singular: the same number added to all logits changes nothing
    direction = np.linalg.solve(bowl, slope)
    step = np.sqrt(2 * DELTA / (direction @ bowl @ direction)) * direction
    print(f"gradient         {slope.round(4)}\nnatural gradient {direction.round(4)}")
    before, _ = surrogate_and_kl(logits)
    for tried in range(10):
        surrogate, kl = surrogate_and_kl(logits + SHRINK**tried * step)
        safe = kl <= DELTA and surrogate > before
        verdict = "taken" if safe else "refused"
        print(f"step x {SHRINK**tried:.3f}: KL {kl:.4f}, objective {before:.4f} -> {surrogate:.4f}, {verdict}")
        if safe:
            return logits + SHRINK**tried * step
    return logits


def compare() -> None:
    """The same step from rlx.ops, which sees the matrix through its products alone."""
    by_hand = step_by_hand()
    params, actions, advantages = jnp.array(logits), jnp.array(action), jnp.array(advantage)

    def policy(params: jax.Array) -> rlx.ops.Categorical:
        return rlx.ops.Categorical(jnp.tile(params, (6, 1)))

    old = policy(params)

    def evaluate(params: jax.Array) -> tuple[jax.Array, jax.Array]:
        log_prob, old_log_prob = policy(params).log_prob(actions), old.log_prob(actions)
        return -rlx.ops.surrogate_loss(log_prob, old_log_prob, advantages).mean(), old.kl(policy(params)).mean()

    gradient = jax.grad(lambda params: evaluate(params)[0])(params)
    fisher = rlx.ops.fisher_vector_product(policy, params)
    step, residual = rlx.ops.natural_step(lambda v: fisher(v) + DAMPING * v, gradient, DELTA, 10, 1e-6)
    found = rlx.ops.line_search(evaluate, params, step, DELTA, SHRINK, 10)
    print(f"logits by hand {by_hand.round(4)}, by rlx.ops {np.asarray(found.params).round(4)}")
    print(f"conjugate gradient left {float(residual):.0e} of the gradient over\n")
    np.testing.assert_allclose(found.params, by_hand, rtol=1e-3, atol=1e-4)


# ---------------------------------------------------------------------------------------------------------------------
# The whole algorithm: act for a while, estimate advantages, one step of the actor, some epochs of the critic, repeat.
# ---------------------------------------------------------------------------------------------------------------------
def learn(updates: int, picture: str) -> None:
    """Balance CartPole's pole with four seeds at once, and draw how it went."""
    env = rlx.make("CartPole-v1")
    config = rlx.TRPOConfig(num_envs=8, num_steps=128)
    optimizer = optax.adam(1e-3)  # the critic's; the actor has none
    algorithm = rlx.trpo(env, rlx.nets.actor(env), rlx.nets.critic(env), optimizer, config)
    keys = jax.random.split(jax.random.key(0), 4)
    states, metrics = rlx.jit(jax.vmap(lambda key: rlx.train(algorithm, key, updates)))(keys)
    played = rlx.jit(jax.vmap(lambda state, key: rlx.evaluate(algorithm, env, state, key)))(states, keys)
    for seed, returns in enumerate(played.episode_return):
        print(f"seed {seed}: {returns.mean():.1f} of 500, greedy, mean of {returns.size} episodes")
    print(f"steps accepted: {metrics['accepted'].mean():.0%}, largest KL {metrics['kl'].max():.5f} of {config.max_kl}")

    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 4.0), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    left.set(title="TRPO on CartPole-v1", xlabel="environment steps", ylabel="return of training episodes")
    right.set(title="How far each step went", xlabel="environment steps", ylabel="KL(pi_old || pi), nats")
    steps = (np.arange(updates) + 1) * config.env_steps
    for episodes, mean, kl in zip(metrics["episodes"], metrics["episode_return"], metrics["kl"], strict=True):
        ended = np.asarray(episodes) > 0  # in some updates no episode ends: they have no return to show
        left.plot(steps[ended], np.asarray(mean)[ended], linewidth=0.8)
        right.plot(steps, np.asarray(kl), linewidth=0.8)
    right.axhline(config.max_kl, color="black", linestyle="--", linewidth=0.8)
    figure.savefig(picture)
    print(f"learning curves: {picture}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=97, help="updates of 1024 environment steps each")
    parser.add_argument("--picture", default="trpo.png", help="where to save the learning curves")
    arguments = parser.parse_args()
    compare()
    learn(arguments.updates, arguments.picture)
