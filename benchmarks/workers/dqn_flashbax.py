"""DQN written down plainly with optax and flashbax, as a tutorial would; environments and network are rlx's, so that
what differs is the loop, the replay and the update. It computes the mean loss and nothing else."""

from typing import Any

from benchmarks.workers.common import Stopwatch, arguments, measure, settings_of


def main() -> None:
    args, watch = arguments(), Stopwatch()
    settings = settings_of(args.work)
    with watch("import"):
        import flashbax  # pyright: ignore[reportMissingImports]
        import jax
        import jax.numpy as jnp
        import optax

        import rlx
    with watch("build"):
        num_envs, discount = settings["num_envs"], settings["discount"]
        env = rlx.vectorize(rlx.make(settings["env"]), num_envs)
        network = rlx.nets.q_network(rlx.make(settings["env"]), settings["hidden"], settings["activation"])
        apply: Any = network.apply
        optimizer = optax.chain(
            optax.clip_by_global_norm(settings["max_grad_norm"]), optax.adam(settings["learning_rate"])
        )
        buffer = flashbax.make_item_buffer(
            max_length=settings["replay_size"],
            min_length=settings["batch_size"],
            sample_batch_size=settings["batch_size"],
            add_batches=True,
        )

        def interact(key: Any, params: Any, epsilon: Any, env_state: Any, observation: Any) -> tuple[Any, ...]:
            explore_key, action_key, step_key, reset_key = jax.random.split(key, 4)
            random = jax.random.randint(action_key, (num_envs,), 0, 2)
            greedy = jnp.argmax(apply(params, observation), axis=-1)
            action = jnp.where(jax.random.uniform(explore_key, (num_envs,)) < epsilon, random, greedy)
            keys = jnp.stack([jax.random.split(step_key, num_envs), jax.random.split(reset_key, num_envs)])
            env_state, next_observation, step = env.step(keys, env_state, action)
            row = {
                "observation": observation,
                "action": action,
                "reward": step.reward,
                "terminated": step.terminated,
                "next_observation": step.observation,
            }
            return env_state, next_observation, row

        def learn(params: Any, target_params: Any, opt_state: Any, batch: Any) -> tuple[Any, Any, Any]:
            next_value = jnp.max(apply(target_params, batch["next_observation"]), axis=-1)
            target = batch["reward"] + discount * (1.0 - batch["terminated"]) * next_value

            def loss_of(params: Any) -> Any:
                values = apply(params, batch["observation"])
                value = jnp.take_along_axis(values, batch["action"][:, None], axis=-1)[:, 0]
                return 0.5 * jnp.mean(jnp.square(value - target))

            loss, gradients = jax.value_and_grad(loss_of)(params)
            updates, opt_state = optimizer.update(gradients, opt_state)
            return optax.apply_updates(params, updates), opt_state, loss

        def train(key: Any) -> Any:
            key, params_key, env_key, fill_key = jax.random.split(key, 4)
            env_state, observation = env.reset(env_key)
            params = network.init(params_key, observation)

            def fill(carry: Any, key: Any) -> tuple[Any, Any]:
                env_state, observation, row = interact(key, params, 1.0, *carry)
                return (env_state, observation), row

            keys = jax.random.split(fill_key, settings["prefill"] // num_envs)
            (env_state, observation), rows = jax.lax.scan(fill, (env_state, observation), keys)
            rows = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rows)
            replay = buffer.add(buffer.init(jax.tree.map(lambda x: x[0], rows)), rows)

            def one(carry: Any, count: Any) -> tuple[Any, Any]:
                key, params, target_params, opt_state, env_state, observation, replay = carry
                key, interact_key, sample_key = jax.random.split(key, 3)
                progress = jnp.minimum(count * num_envs / settings["epsilon_steps"], 1.0)
                epsilon = settings["epsilon_start"] + progress * (settings["epsilon_end"] - settings["epsilon_start"])
                env_state, observation, row = interact(interact_key, params, epsilon, env_state, observation)
                replay = buffer.add(replay, row)
                batch = buffer.sample(replay, sample_key).experience
                params, opt_state, loss = learn(params, target_params, opt_state, batch)
                copy = (count + 1) % settings["target_every"] == 0
                target_params = jax.tree.map(lambda old, new: jnp.where(copy, new, old), target_params, params)
                return (key, params, target_params, opt_state, env_state, observation, replay), loss

            carry = (key, params, params, optimizer.init(params), env_state, observation, replay)
            carry, losses = jax.lax.scan(one, carry, jnp.arange(settings["updates"]))
            return carry[1], losses

    def check(out: Any) -> dict[str, Any]:
        params, losses = out
        greedy = rlx.Algorithm(lambda key: params, lambda state: (state, {}), lambda params, key, x: act(params, x))

        def act(params: Any, observation: Any) -> Any:
            return jnp.argmax(apply(params, observation), axis=-1)

        episodes = jax.jit(
            lambda state, key: rlx.evaluate(greedy, rlx.make(settings["env"]), state, key, settings["eval_episodes"])
        )(params, jax.random.key(1))
        return {
            "gradient_steps": losses.size,
            "env_steps": losses.size * num_envs,
            "parameters": sum(x.size for x in jax.tree.leaves(params)),
            "return": float(episodes.episode_return.mean()),
        }

    measure(args, watch, lambda key: jax.jit(train).lower(key).compile(), check)


if __name__ == "__main__":
    main()
