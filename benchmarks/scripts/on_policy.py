"""PPO over gymnasium's environments, whole: `python -m benchmarks.scripts.on_policy --env LunarLander-v3`.

A2C, REINFORCE and TRPO are made and driven in the same way.
"""

import argparse

import jax
import optax

import rlx

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--env", default="LunarLander-v3")
parser.add_argument("--steps", type=int, default=1_000_000)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--num-steps", type=int, default=256)
arguments = parser.parse_args()

env = rlx.envs.gymnasium(arguments.env)
network = rlx.nets.actor_critic(env, hidden=(64, 64))
config = rlx.PPOConfig(
    num_envs=16, num_steps=arguments.num_steps, num_epochs=6, num_minibatches=32, discount=0.999, trace=0.98
)
updates = arguments.steps // config.env_steps
learning_rate = optax.linear_schedule(1e-3, 0.0, updates * config.num_epochs * config.num_minibatches)
optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(learning_rate, eps=1e-5))
algorithm = rlx.ppo(env, network, optimizer, config)

key, evaluation_key = jax.random.split(jax.random.key(arguments.seed))
state, done = algorithm.init(key), 0
for state, metrics in rlx.chunks(algorithm, state, updates, every=max(1, updates // 20)):  # noqa: B007, B020
    done += len(metrics["episodes"]) * config.env_steps
    episodes = metrics["episodes"].sum()
    mean = (metrics["episode_return"] * metrics["episodes"]).sum() / max(episodes, 1)
    print(f"{done:>9,} steps: {episodes:4} episodes, mean return {mean:8.1f}")

played = rlx.evaluate(algorithm, env, state, evaluation_key, num_episodes=20)
print(f"greedy, 20 episodes: {played.episode_return.mean():.1f}")
