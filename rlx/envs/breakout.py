"""Breakout: keep a ball in play and break bricks with it (MinAtar's Breakout)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from rlx.envs.elementwise import uniform
from rlx.types import Key, Step

SIZE = 10  # rows and columns of the board
BRICK_ROWS = slice(1, 4)


class State(NamedTuple):
    """Where everything is. Scalars are int32; row 0 is the top, column 0 the left."""

    ball_row: jax.Array
    ball_column: jax.Array
    row_velocity: jax.Array  # -1 up, 1 down
    column_velocity: jax.Array  # -1 left, 1 right
    trail_row: jax.Array  # the ball's place before the step
    trail_column: jax.Array
    paddle: jax.Array  # its column, on the bottom row
    bricks: jax.Array  # bool [3, 10], rows 1 to 3 of the board
    strike: jax.Array  # bool: the ball was on a brick on the step before, and breaks none on the next
    last_action: jax.Array  # what was done on the step before; 0 after a reset
    time: jax.Array  # steps since the reset


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Breakout:
    """A ball on diagonals, a paddle below, three rows of bricks above: MinAtar's Breakout, rule for rule.

    A step, with the ball at (r, c), its velocity (v, w) of +-1 each, and the paddle in column p:

        1. The paddle moves: p' = clip(p + (0, -1, 1)[action]). With probability `sticky` the action is that of the
           step before.
        2. The ball moves to (r + v, c + w). Beyond the left or right wall: c' is clipped, w is reversed.
        3. Beyond the top: r' = 0, v is reversed. Else on a brick, unless the ball was on one on the step before: the
           brick breaks, reward 1, r' = r, v is reversed. Else on the bottom row: if no brick is left, all come back;
           then, if c = p', r' = r and v is reversed; else if c' = p', r' = r and both v and w are reversed; else the
           ball is lost.

    Observation, uint8 [10, 10, 4] of 0 and 255: paddle, ball, trail (where the ball was), bricks; at a reset the ball
    is in row 3 at the left wall going right or at the right wall going left, downwards, the paddle in column 4. Action:
    0 stay, 1 left, 2 right (MinAtar's minimal set, its 0, 1, 3). Terminated when the ball is lost, truncated after
    `max_steps`; both may be set. Known good: a return above 10; 30 is a wall cleared (random actions: about 0.4).

    MinAtar has no time limit; `max_steps` is ours, and ends an episode that a perfect player would not. MinAtar keeps
    the action to be repeated through its resets, here an episode begins with none.

    Source: Young and Tian 2019 (arXiv:1903.03176), as `minatar/environments/breakout.py`.
    """

    sticky: float = 0.1  # probability that the action is the one before; 0 makes the game deterministic
    max_steps: int = field(default=1000, metadata={"static": True})  # steps in an episode

    @property
    def observation_space(self) -> spaces.Box:
        """An image of four channels: paddle, ball, trail, bricks."""
        return spaces.Box(0, 255, (SIZE, SIZE, 4), np.uint8)

    @property
    def action_space(self) -> spaces.Discrete:
        """0 stay, 1 left, 2 right."""
        return spaces.Discrete(3)

    def reset(self, key: Key) -> tuple[State, jax.Array]:
        """Serve the ball from the left or the right wall: `(state, observation [10, 10, 4])`."""
        (u,) = uniform(key, 1)
        right = (u < 0.5).astype(jnp.int32)  # 0 or 1
        column, zero = (SIZE - 1) * right, jnp.zeros((), jnp.int32)
        state = State(
            ball_row=zero + 3,
            ball_column=column,
            row_velocity=zero + 1,
            column_velocity=1 - 2 * right,
            trail_row=zero + 3,
            trail_column=column + 0,  # a buffer of its own
            paddle=zero + 4,
            bricks=jnp.ones((3, SIZE), bool),
            strike=jnp.zeros((), bool),
            last_action=zero + 0,
            time=zero + 0,
        )
        return state, _observe(state)

    def step(self, key: Key, state: State, action: jax.Array) -> Step:
        """Move the paddle, then the ball; `action` is an integer scalar. The key decides whether it sticks."""
        (u,) = uniform(key, 1)
        action = jnp.where(u < self.sticky, state.last_action, action)
        paddle = jnp.clip(state.paddle + (action == 2) - (action == 1), 0, SIZE - 1)

        column, column_velocity = state.ball_column + state.column_velocity, state.column_velocity
        at_wall = (column < 0) | (column >= SIZE)
        column, column_velocity = jnp.clip(column, 0, SIZE - 1), jnp.where(at_wall, -column_velocity, column_velocity)

        row = state.ball_row + state.row_velocity
        at_top = row < 0
        under_ball = (_BOARD[0][BRICK_ROWS] == row) & (_BOARD[1] == column) & state.bricks  # [3, 10]
        on_brick = jnp.any(under_ball)
        broken = on_brick & ~state.strike
        at_bottom = row == SIZE - 1
        straight = at_bottom & (state.ball_column == paddle)
        corner = at_bottom & ~straight & (column == paddle)
        returned = broken | straight | corner
        bricks = state.bricks & ~(under_ball & broken)

        state = State(
            ball_row=jnp.where(returned, state.ball_row, jnp.maximum(row, 0)),
            ball_column=column,
            row_velocity=jnp.where(at_top | returned, -state.row_velocity, state.row_velocity),
            column_velocity=jnp.where(corner, -column_velocity, column_velocity),
            trail_row=state.ball_row,
            trail_column=state.ball_column,
            paddle=paddle,
            bricks=bricks | (at_bottom & ~jnp.any(bricks)),
            strike=on_brick,
            last_action=action,
            time=state.time + 1,
        )
        return Step(
            state,
            observation=_observe(state),
            reward=broken.astype(jnp.float32),
            terminated=at_bottom & ~returned,
            truncated=state.time >= self.max_steps,
            info={},
        )


_BOARD = np.ogrid[:SIZE, :SIZE]  # row numbers [10, 1], column numbers [1, 10]


def _observe(state: State) -> jax.Array:
    row, column = _BOARD
    paddle = (row == SIZE - 1) & (column == state.paddle)
    ball = (row == state.ball_row) & (column == state.ball_column)
    trail = (row == state.trail_row) & (column == state.trail_column)
    bricks = jnp.pad(state.bricks, ((BRICK_ROWS.start, SIZE - BRICK_ROWS.stop), (0, 0)))
    return jnp.where(jnp.stack([paddle, ball, trail, bricks], -1), jnp.uint8(255), jnp.uint8(0))
