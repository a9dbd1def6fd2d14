"""Catch: move a paddle under a falling ball (bsuite's Catch)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from rlx.envs.elementwise import uniform
from rlx.types import Key, Step


class State(NamedTuple):
    """Where the ball and the paddle are; every field an int32 scalar."""

    ball_row: jax.Array  # 0 is the top; also the steps since the reset
    ball_column: jax.Array
    paddle_column: jax.Array  # on the bottom row


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Catch:
    """A ball falls one row a step, a paddle waits on the bottom row.

    With the ball at (r, c), the paddle in column p, action u in {0, 1, 2}:

        p' = clip(p + u - 1),    r' = r + 1

    Observation, uint8 [rows, columns, 1]: 255 at the ball and at the paddle, else 0; at a reset the ball is on the top
    row in a random column and the paddle in the middle. Action: 0 left, 1 stay, 2 right. Reward 1 where the ball comes
    down on the paddle, -1 where it comes down elsewhere, 0 before. Terminated when it is down, `rows - 1` steps after
    the reset; never truncated. Known good: a return of 1 (random actions: about -0.6).

    Source: Osband et al. 2020 (bsuite, arXiv:1908.03568), as `bsuite/environments/catch.py`, whose observations are
    float [rows, columns] of 0 and 1.
    """

    rows: int = field(default=10, metadata={"static": True})  # 2 or more
    columns: int = field(default=5, metadata={"static": True})

    @property
    def observation_space(self) -> spaces.Box:
        """An image of one channel."""
        return spaces.Box(0, 255, (self.rows, self.columns, 1), np.uint8)

    @property
    def action_space(self) -> spaces.Discrete:
        """0 left, 1 stay, 2 right."""
        return spaces.Discrete(3)

    def reset(self, key: Key) -> tuple[State, jax.Array]:
        """Drop a ball from a random column: `(state, observation [rows, columns, 1])`."""
        (u,) = uniform(key, 1)
        column = (self.columns * u).astype(jnp.int32)
        state = State(jnp.zeros((), jnp.int32), column, jnp.full((), self.columns // 2, jnp.int32))
        return state, self._observe(state)

    def step(self, key: Key, state: State, action: jax.Array) -> Step:
        """Move the paddle, then the ball falls by a row; `action` is an integer scalar. The key is not used."""
        paddle = jnp.clip(state.paddle_column + action - 1, 0, self.columns - 1)
        state = State(state.ball_row + 1, state.ball_column, paddle)
        down = state.ball_row == self.rows - 1
        return Step(
            state,
            observation=self._observe(state),
            reward=jnp.where(down, jnp.where(paddle == state.ball_column, 1.0, -1.0), jnp.zeros(())),
            terminated=down,
            truncated=jnp.zeros((), bool),
            info={},
        )

    def _observe(self, state: State) -> jax.Array:
        row, column = np.ogrid[: self.rows, : self.columns]
        ball = (row == state.ball_row) & (column == state.ball_column)
        paddle = (row == self.rows - 1) & (column == state.paddle_column)
        return jnp.where(ball | paddle, jnp.uint8(255), jnp.uint8(0))[..., None]
