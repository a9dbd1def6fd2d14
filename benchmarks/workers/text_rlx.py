"""Language by rlx: sampling with a cache, and a training step."""

from typing import Any

from benchmarks.workers.common import TEXT, measure_text


def build() -> tuple[Any, Any, Any]:
    import jax
    import jax.numpy as jnp
    import optax

    from rlx.algorithms.sft import sft
    from rlx.lm.sequences import Prompts, Sampling, Sequences, sample
    from rlx.nets.transformer import Transformer, TransformerConfig

    batch, prompt, response = TEXT["batch_size"], TEXT["prompt"], TEXT["response"]
    shape = {name: TEXT[name] for name in ("vocabulary", "width", "layers", "heads", "hidden")}
    model = Transformer(TransformerConfig(**shape))
    tokens = jax.random.randint(jax.random.key(0), (batch, prompt + response), 0, TEXT["vocabulary"])
    prompts = Prompts(tokens[:, :prompt], jnp.full(batch, prompt))
    never = Sampling(response, end=TEXT["vocabulary"])  # an id that is not drawn: all responses are full
    rows = Sequences(tokens[:, :1], jnp.ones(batch, jnp.int32), tokens[:, 1:], jnp.full(batch, tokens.shape[1] - 1))
    optimizer = optax.flatten(optax.adam(TEXT["learning_rate"]))
    algorithm = sft(model, rows, optimizer, never, params=model.init(jax.random.key(1), tokens))
    state = algorithm.init(jax.random.key(2))
    draw = jax.jit(lambda params, key: sample(model, params, key, prompts, never).response)
    step = jax.jit(algorithm.step, donate_argnums=0)
    params = jax.tree.map(jnp.copy, state.learner.params)

    def sampling(seed: int) -> int:
        return jax.block_until_ready(draw(params, jax.random.key(seed))).size

    def training(seed: int) -> float:
        nonlocal state
        state, metrics = step(state)
        return float(metrics["loss"])

    return sum(leaf.size for leaf in jax.tree.leaves(params)), sampling, training


if __name__ == "__main__":
    measure_text(build)
