"""Environments to explore in: a bandit with k arms and DeepSea. Axes: S states, A actions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from rlx.envs.elementwise import cos_sin, uniform
from rlx.envs.tabular import TabularEnv, from_sure_tables
from rlx.types import Key, Step


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Bandit:
    """Pull one of k arms; the episode terminates.

    The reward of arm a is Normal(mean[a], deviation). Observation: 0, int32. With means drawn from Normal(0, 1) it is
    the testbed of Sutton and Barto 2018, sec. 2.3. Means and deviation are leaves of the pytree, free to be traced.
    """

    mean: jax.Array  # [A], of each arm's reward
    deviation: float = 1.0  # of a reward from its mean

    @property
    def observation_space(self) -> spaces.Discrete:
        """Nothing to see."""
        return spaces.Discrete(1)

    @property
    def action_space(self) -> spaces.Discrete:
        """The arms."""
        return spaces.Discrete(self.mean.shape[0])

    def reset(self, key: Key) -> tuple[jax.Array, jax.Array]:
        """Begin: `(state [], observation [])`, both 0. The key is not used."""
        return jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)

    def step(self, key: Key, state: jax.Array, action: jax.Array) -> Step:
        """Pull an arm: an integer scalar."""
        u, v = uniform(key, 2)
        noise = jnp.sqrt(-2.0 * jnp.log(1.0 - u)) * cos_sin(2.0 * math.pi * v)[0]  # Box and Muller's Normal(0, 1)
        reward = self.mean[action] + self.deviation * noise
        return Step(state, jnp.zeros((), jnp.int32), reward, jnp.ones((), bool), jnp.zeros((), bool), {})


def deep_sea(size: int = 10, seed: int | None = None) -> TabularEnv:
    """Dive N rows down a grid of N columns, each step to the left or to the right.

    The diver begins at the top left; each step goes one row down. A step to the right costs 0.01 / N; to the right
    from the bottom right corner is the treasure, 1. The episode terminates after N steps. One policy in 2^N gets there,
    and every step towards it costs: dithering needs some 2^N episodes, exploration that plans ahead some N^2. The
    observation is N * row + column. Known good: a return of 0.99.

    Source: Osband et al. 2020, "Behaviour Suite for Reinforcement Learning", sec. 2.1, the deterministic version.

    Args:
        size: N.
        seed: which action is right, drawn anew for each cell (so that nothing is gained by doing the same
            everywhere); None: action 1 always.
    """
    row, column = np.divmod(np.arange(size * size), size)
    right_action = np.ones(size * size, int)
    if seed is not None:
        right_action = np.random.default_rng(seed).integers(0, 2, size * size)
    right = np.arange(2) == right_action[:, None]  # [S, A]
    next_column = (column[:, None] + np.where(right, 1, -1)).clip(0, size - 1)
    next_state = np.minimum(row + 1, size - 1)[:, None] * size + next_column
    treasure = right & (column == size - 1)[:, None]
    last = np.broadcast_to((row == size - 1)[:, None], right.shape)
    reward = treasure - 0.01 / size * right
    return from_sure_tables(next_state, reward, last, np.arange(size * size) == 0, None)
