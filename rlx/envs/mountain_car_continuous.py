"""MountainCarContinuous: the car in the valley with a throttle (gymnasium's MountainCarContinuous-v0)."""

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
class MountainCarContinuous:
    """A car in a valley too steep for its engine, equal to gymnasium's MountainCarContinuous-v0 step for step.

    With position x, velocity v, throttle u, power P, gravity g:

        v' = clip(v + P clip(u, -1, 1) - g cos 3x)
        x' = clip(x + v')                                      at the left end a velocity to the left becomes 0
        reward = 100 [at the goal] - 0.1 u^2                   of u as it came, not clipped

    Observation, float32 [2]: position, velocity; at a reset the position is uniform in [-0.6, -0.4], the velocity 0.
    Action, float32 [1]: the throttle. Terminated at the goal (0.45, where MountainCar's is 0.5), truncated after
    `max_steps`; both may be set. Known good: a return of 90 or more (random actions: about -33, as nearly no episode
    reaches the goal; no action at all: 0).

    Source: Moore 1990, as `gymnasium/envs/classic_control/continuous_mountain_car.py`.

    The constants are leaves of the pytree, free to be traced; what sets the spaces or the time limit is static.
    """

    power: float = 0.0015  # per step^2, of the engine at full throttle
    gravity: float = 0.0025  # per step^2
    goal_position: float = 0.45  # reached at or beyond it
    goal_velocity: float = 0.0  # reached with it or more
    min_position: float = field(default=-1.2, metadata={"static": True})
    max_position: float = field(default=0.6, metadata={"static": True})
    max_speed: float = field(default=0.07, metadata={"static": True})  # per step
    max_steps: int = field(default=999, metadata={"static": True})  # steps in an episode

    @property
    def observation_space(self) -> spaces.Box:
        """The road's ends and the highest speed."""
        low = np.array([self.min_position, -self.max_speed], np.float32)
        high = np.array([self.max_position, self.max_speed], np.float32)
        return spaces.Box(low, high, dtype=np.float32)

    @property
    def action_space(self) -> spaces.Box:
        """The throttle, shape [1]."""
        return spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, key: Key) -> tuple[State, jax.Array]:
        """Begin at rest near the valley's bottom: `(state, observation [2])`."""
        (u,) = uniform(key, 1)
        state = State(0.2 * u - 0.6, jnp.zeros(()), jnp.zeros((), jnp.int32))
        return state, jnp.stack(state[:2])

    def step(self, key: Key, state: State, action: jax.Array) -> Step:
        """Apply the throttle `action` [1] for one step. The key is not used."""
        throttle = jnp.squeeze(action, -1)
        slope, _ = cos_sin(3 * state.position)
        push = self.power * jnp.clip(throttle, -1.0, 1.0) - self.gravity * slope
        velocity = jnp.clip(state.velocity + push, -self.max_speed, self.max_speed)
        position = jnp.clip(state.position + velocity, self.min_position, self.max_position)
        velocity = jnp.where((position == self.min_position) & (velocity < 0), 0.0, velocity)
        terminated = (position >= self.goal_position) & (velocity >= self.goal_velocity)
        state = State(position, velocity, state.time + 1)
        return Step(
            state,
            observation=jnp.stack(state[:2]),
            reward=jnp.where(terminated, 100.0, 0.0) - 0.1 * jnp.square(throttle),
            terminated=terminated,
            truncated=state.time >= self.max_steps,
            info={},
        )
