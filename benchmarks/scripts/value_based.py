"""DQN over gymnasium's environments, whole: `python -m benchmarks.scripts.value_based --env LunarLander-v3`."""

import argparse

import jax
import optax

import rlx

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--env", default="LunarLander-v3")
parser.add_argument("--steps", type=int, default=500_000)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--prefill", type=int, default=10_000)
arguments = parser.parse_args()

env = rlx.envs.gymnasium(arguments.env)
network = rlx.nets.q_network(env, hidden=(128, 128))
config = rlx.DQNConfig(
    num_envs=4,
    num_steps=4,
    gradient_steps=4,
    batch_size=128,
    prefill=arguments.prefill,
    target_every=250,
    epsilon_steps=arguments.steps // 10,
    n_step=3,
)
updates = (arguments.steps - config.prefill) // config.env_steps
learning_rate = optax.linear_schedule(6e-4, 0.0, updates * config.gradient_steps)
optimizer = optax.chain(optax.clip_by_global_norm(10.0), optax.adam(learning_rate))
algorithm = rlx.dqn(env, network, optimizer, config)

key, evaluation_key = jax.random.split(jax.random.key(arguments.seed))
state = algorithm.init(key)
for state, metrics in rlx.chunks(algorithm, state, updates, every=max(1, updates // 20)):  # noqa: B020
    episodes = metrics["episodes"].sum()
    mean = (metrics["episode_return"] * metrics["episodes"]).sum() / max(episodes, 1)
    print(f"{state.env_steps + config.prefill:>9,} steps: {episodes:4} episodes, mean return {mean:8.1f}")

played = rlx.evaluate(algorithm, env, state, evaluation_key, num_episodes=20)
print(f"greedy, 20 episodes: {played.episode_return.mean():.1f}")
