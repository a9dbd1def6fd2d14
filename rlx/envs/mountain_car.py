"""MountainCar: rock an underpowered car out of a valley (gymnasium's MountainCar-v0)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from rlx.envs.elementwise import cos_sin, uniform
from rlx.types import Key, Step


class State(NamedTuple):
    """Where the car is; every field a scalar."""

    position: jax.Array  # along the road; the valley's bottom is at -pi / 6
    velocity: jax.Array  # per step
    time: jax.Array  # int32, steps since the reset


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MountainCar:
    """A car in a valley too steep for its engine, equal to gymnasium's MountainCar-v0 step for step.

    With position x, velocity v, action u in {0, 1, 2}, force F, gravity g:

        v' = clip(v + (u - 1) F - g cos 3x)
        x' = clip(x + v')                                      at the left end a velocity to the left becomes 0

    Observation, float32 [2]: position, velocity; at a reset the position is uniform in [-0.6, -0.4], the velocity 0.
    Action: 0 pushes left, 1 not at all, 2 right. Reward -1 on every step, the last one too. Terminated at the goal,
    truncated after `max_steps`; both may be set. Known good: a return of about -100 (random actions: -200, as nearly
    no episode reaches the goal).

    Source: Moore 1990, as `gymnasium/envs/classic_control/mountain_car.py`.

    The constants are leaves of the pytree, free to be traced; what sets the spaces or the time limit is static.
    """

    force: float = 0.001  # per step^2, of the engine
    gravity: float = 0.0025  # per step^2
    goal_position: float = 0.5  # reached at or beyond it
    goal_velocity: float = 0.0  # reached with it or more
    min_position: float = field(default=-1.2, metadata={"static": True})
    max_position: float = field(default=0.6, metadata={"static": True})
    max_speed: float = field(default=0.07, metadata={"static": True})  # per step
    max_steps: int = field(default=200, metadata={"static": True})  # steps in an episode

    @property
    def observation_space(self) -> spaces.Box:
        """The road's ends and the highest speed."""
        low = np.array([self.min_position, -self.max_speed], np.float32)
        high = np.array([self.max_position, self.max_speed], np.float32)
        return spaces.Box(low, high, dtype=np.float32)

    @property
    def action_space(self) -> spaces.Discrete:
        """0 pushes left, 1 not at all, 2 right."""
        return spaces.Discrete(3)

    def reset(self, key: Key) -> tuple[State, jax.Array]:
        """Begin at rest near the valley's bottom: `(state, observation [2])`."""
        (u,) = uniform(key, 1)
        state = State(0.2 * u - 0.6, jnp.zeros(()), jnp.zeros((), jnp.int32))
        return state, jnp.stack(state[:2])

    def step(self, key: Key, state: State, action: jax.Array) -> Step:
        """Push for one step; `action` is an integer scalar. The key is not used."""
        slope, _ = cos_sin(3 * state.position)
        push = (action - 1) * self.force - self.gravity * slope
        velocity = jnp.clip(state.velocity + push, -self.max_speed, self.max_speed)
        position = jnp.clip(state.position + velocity, self.min_position, self.max_position)
        velocity = jnp.where((position == self.min_position) & (velocity < 0), 0.0, velocity)
        state = State(position, velocity, state.time + 1)
        return Step(
            state,
            observation=jnp.stack(state[:2]),
            reward=jnp.full_like(position, -1.0),
            terminated=(position >= self.goal_position) & (velocity >= self.goal_velocity),
            truncated=state.time >= self.max_steps,
            info={},
        )
