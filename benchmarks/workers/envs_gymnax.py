"""JAX environments stepped by gymnax. Its Breakout has no sticky actions, its images are float32."""

from typing import Any

from benchmarks.workers.common import ENVS, measure_envs


def build(env_id: str, num_envs: int) -> tuple[Any, ...]:
    import gymnax  # pyright: ignore[reportMissingImports]
    import jax

    env, params = gymnax.make(env_id)
    scale = params.max_torque if env_id in ENVS["continuous"] else 1

    def draw_keys(key: Any, num_steps: int) -> Any:
        return jax.random.split(key, (num_steps, num_envs))

    def reset(key: Any) -> tuple[Any, Any]:
        observation, state = jax.vmap(env.reset, (0, None))(jax.random.split(key, num_envs), params)
        return state, observation

    def step(keys: Any, state: Any, action: Any) -> tuple[Any, ...]:
        observation, state, reward, done, _ = jax.vmap(env.step, (0, 0, 0, None))(keys, state, scale * action, params)
        return state, observation, reward, done

    return draw_keys, reset, step


if __name__ == "__main__":
    measure_envs(build)
