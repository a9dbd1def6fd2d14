"""SAC over gymnasium's environments, whole: `python -m benchmarks.scripts.off_policy --env LunarLanderContinuous-v3`.

TD3 and DDPG are made and driven in the same way.
"""

import argparse

import jax
import optax

import rlx

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--env", default="LunarLanderContinuous-v3")
parser.add_argument("--steps", type=int, default=500_000)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--prefill", type=int, default=8_000)
arguments = parser.parse_args()

env = rlx.envs.gymnasium(arguments.env)
actor, critic = rlx.nets.soft_actor(env, hidden=(128, 128)), rlx.nets.q_critic(env, hidden=(128, 128))
config = rlx.SACConfig(
    num_envs=8, num_steps=2, gradient_steps=8, prefill=arguments.prefill, replay_size=400_000, tau=0.01
)
updates = (arguments.steps - config.prefill) // config.env_steps
optimizer = optax.adam(optax.linear_schedule(7e-4, 0.0, updates * config.gradient_steps))
algorithm = rlx.sac(env, actor, critic, optimizer, config)

key, evaluation_key = jax.random.split(jax.random.key(arguments.seed))
state, done = algorithm.init(key), config.prefill
for state, metrics in rlx.chunks(algorithm, state, updates, every=max(1, updates // 20)):  # noqa: B007, B020
    done += len(metrics["episodes"]) * config.env_steps
    episodes = metrics["episodes"].sum()
    mean = (metrics["episode_return"] * metrics["episodes"]).sum() / max(episodes, 1)
    print(f"{done:>9,} steps: {episodes:4} episodes, mean return {mean:8.1f}, entropy {metrics['entropy'][-1]:6.2f}")

played = rlx.evaluate(algorithm, env, state, evaluation_key, num_episodes=20)
print(f"greedy, 20 episodes: {played.episode_return.mean():.1f}")
