"""A policy whose strings share features, over a language small enough to list.

Axes: V vocabulary, T tokens at most, N strings (all there are), F features.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rlx.lm.enumerable import Language, TabularModel


class LogLinearModel(TabularModel, kw_only=True):
    """A language model that is log-linear in features of whole strings: what moves one string moves its like.

        pi(y) proportional to base(y) exp(weight . features(y))

    It begins at the base, and can be any distribution only if the features tell all strings apart: the smallest model
    in which a gradient step on two strings carries a third along. It has a transformer's methods, as its parent has.

    Attributes:
        base: `[N]` log-probabilities, or scores, of the language's strings at weight 0.
        features: `[N, F]` of the strings.
    """

    base: Any
    string_features: Any

    def setup(self) -> None:
        """Take the weight `[F]`, zeros at first, and make the table of next tokens' logits of it."""
        features = jnp.asarray(self.string_features)
        self.weight: jax.Array = self.param("weight", nn.initializers.zeros, (features.shape[1],))
        self.table = next_token_logits(self.language, jnp.asarray(self.base) + features @ self.weight)


def next_token_logits(language: Language, score: jax.Array) -> jax.Array:
    """The table `[C, V]` by which string y has a probability in proportion to `exp(score(y))`.

    A token's logit is the logarithm of what all strings that go on with it have together.

    Args:
        language: whose strings.
        score: `[N]` of its strings.
    """
    with jax.ensure_compile_time_eval():
        response, depth = (np.asarray(x) for x in language.strings[2:])
    place, size = np.zeros(len(response), int), language.vocabulary
    for t, token in enumerate(response.T):
        place = np.where(t < depth, place * size + token, place)  # of the string among all of its length
    below, tables = jnp.full((size**language.max_tokens,), IMPOSSIBLE), []
    for level in range(language.max_tokens, 0, -1):
        ending = depth == level
        below = below.at[place[ending]].set(score[ending])
        tables.append(below.reshape(-1, size))
        below = jax.nn.logsumexp(tables[-1], axis=-1)
    return jnp.concatenate(tables[::-1])


IMPOSSIBLE = -1e9  # of what follows an end: finite, as the softmax of nothing but -inf is not a number
