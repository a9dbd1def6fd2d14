"""JAX environments stepped by rlx. Breakout's actions stick with probability 0.1, which costs it a draw a step."""

from typing import Any

from benchmarks.workers.common import ENVS, measure_envs


def build(env_id: str, num_envs: int) -> tuple[Any, ...]:
    import jax

    import rlx

    env = rlx.vectorize(rlx.make(env_id), num_envs)
    continuous = env_id in ENVS["continuous"]

    def draw_keys(key: Any, num_steps: int) -> tuple[Any, Any]:
        step_key, reset_key = jax.random.split(key)  # drawn apart: the compiler leaves out those that nobody uses
        return jax.random.split(step_key, (num_steps, num_envs)), jax.random.split(reset_key, (num_steps, num_envs))

    def step(keys: Any, state: Any, action: Any) -> tuple[Any, ...]:
        state, observation, out = env.step(keys, state, action[:, None] if continuous else action)
        return state, observation, out.reward, out.terminated | out.truncated

    return draw_keys, env.reset, step


if __name__ == "__main__":
    measure_envs(build)
