"""Writing as an environment: an action is a token, an episode a response. So what controls CartPole also writes.

Axes: P prompt, T response, S = P + T both, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from rlx.core.epochs import draw_rows
from rlx.lm.sequences import Prompts, Sequences, rows
from rlx.ops.distributions import Categorical
from rlx.types import Key, PyTree, Step


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TokenEnv:
    """An episode is a response to one of the prompts, token by token; it terminates with `end` or after T tokens.

    The reward comes with the last token. An observation is what is written so far: `{"tokens": [S], "length": []}`.

    Attributes:
        prompts: `[N]`, what is drawn from.
        reward: `(sequences [1]) -> [1]`, a JAX function.
        vocabulary: V.
        max_tokens: T.
        end: id of the token that ends a response.
    """

    prompts: Prompts
    reward: Callable[[Sequences], jax.Array] = dataclasses.field(metadata={"static": True})
    vocabulary: int = dataclasses.field(metadata={"static": True})
    max_tokens: int = dataclasses.field(metadata={"static": True})
    end: int = dataclasses.field(metadata={"static": True})

    @property
    def observation_space(self) -> gymnasium.Space:
        """Space of one observation."""
        size = self.prompts.tokens.shape[1] + self.max_tokens
        tokens = gymnasium.spaces.MultiDiscrete(np.full(size, self.vocabulary))
        return gymnasium.spaces.Dict({"length": gymnasium.spaces.Discrete(size + 1), "tokens": tokens})

    @property
    def action_space(self) -> gymnasium.Space:
        """Space of one action, a token."""
        return gymnasium.spaces.Discrete(self.vocabulary)

    def reset(self, key: Key) -> tuple[Sequences, PyTree]:
        """Begin with one of the prompts."""
        prompts: Prompts = draw_rows(key, self.prompts, 1)
        nothing = jnp.zeros((1, self.max_tokens), jnp.int32), jnp.zeros(1, jnp.int32)
        state = Sequences(prompts.tokens, prompts.length, *nothing)
        return state, self._observe(state)

    def step(self, key: Key, state: Sequences, action: jax.Array) -> Step:
        """Write one token."""
        length = state.response_length
        written = state._replace(response=state.response.at[0, length[0]].set(action), response_length=length + 1)
        over = (action == self.end) | (length[0] + 1 == self.max_tokens)
        reward = jnp.where(over, self.reward(written)[0], 0.0)
        return Step(written, self._observe(written), reward, over, jnp.zeros((), bool), {})

    def _observe(self, state: Sequences) -> PyTree:
        return {"length": (state.prompt_length + state.response_length)[0], "tokens": rows(state)[0]}


class TokenPolicy(NamedTuple):
    """A transformer with "both" heads as an actor-critic of `TokenEnv`.

    Attributes:
        model: the transformer.
    """

    model: Any

    def init(self, key: Key, observation: PyTree) -> PyTree:
        """Parameters of the transformer."""
        return self.model.init(key, jnp.zeros((1, 1), jnp.int32))

    def apply(self, params: PyTree, observation: PyTree) -> tuple[Categorical, jax.Array]:
        """The next token's distribution and the value, `[...]`, of what is written so far."""
        length = observation["length"]
        tokens = observation["tokens"].reshape(-1, observation["tokens"].shape[-1])
        features = self.model.apply(params, tokens, method="features")
        newest = features[jnp.arange(len(tokens)), length.reshape(-1) - 1]
        logits = self.model.apply(params, newest, method="logits")
        value = self.model.apply(params, newest, method="score")
        return Categorical(logits.reshape(*length.shape, -1)), value.reshape(length.shape)
