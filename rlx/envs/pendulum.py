"""Pendulum: swing a pendulum up and hold it there with little torque (gymnasium's Pendulum-v1)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from rlx.envs.elementwise import cos_sin, uniform
from rlx.types import Key, Step


class State(NamedTuple):
    """Where the pendulum is; every field a scalar."""

    angle: jax.Array  # rad; 0 is upright, positive is counter-clockwise
    velocity: jax.Array  # rad/s
    time: jax.Array  # int32, steps since the reset


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Pendulum:
    """A rod on a motor too weak to lift it at once, equal to gymnasium's Pendulum-v1 step for step.

    With angle a in [-pi, pi], velocity w, torque u clipped to its limit, mass m, length l, gravity g:

        reward = -(a^2 + 0.1 w^2 + 0.001 u^2)                  of the state before the step
        w'     = clip(w + (3 g / (2 l) sin a + 3 / (m l^2) u) dt)
        a'     = a + w' dt

    Observation, float32 [3]: cos a, sin a, w; at a reset a is uniform in +-pi and w in +-1. Action, float32 [1]: the
    torque in N m. Never terminated; truncated after `max_steps`. Known good: a return of about -150, the mean over
    starts (random actions: about -1200).

    The angle is wrapped on entry, so that it keeps its float32 digits however often the rod has gone round;
    gymnasium's own angle grows without bound.

    Source: `gymnasium/envs/classic_control/pendulum.py`.

    The constants are leaves of the pytree, free to be traced; what sets the spaces or the time limit is static.
    """

    gravity: float = 10.0  # m/s^2
    mass: float = 1.0  # kg
    length: float = 1.0  # m
    time_step: float = 0.05  # s
    max_speed: float = field(default=8.0, metadata={"static": True})  # rad/s
    max_torque: float = field(default=2.0, metadata={"static": True})  # N m
    max_steps: int = field(default=200, metadata={"static": True})  # steps in an episode

    @property
    def observation_space(self) -> spaces.Box:
        """Cosine, sine and velocity."""
        high = np.array([1.0, 1.0, self.max_speed], np.float32)
        return spaces.Box(-high, high, dtype=np.float32)

    @property
    def action_space(self) -> spaces.Box:
        """The torque in N m, shape [1]."""
        return spaces.Box(-self.max_torque, self.max_torque, (1,), np.float32)

    def reset(self, key: Key) -> tuple[State, jax.Array]:
        """Begin at any angle: `(state, observation [3])`."""
        angle, velocity = (2 * u - 1 for u in uniform(key, 2))
        state = State(math.pi * angle, velocity, jnp.zeros((), jnp.int32))
        return state, _observe(state)

    def step(self, key: Key, state: State, action: jax.Array) -> Step:
        """Apply the torque `action` [1] for one time step. The key is not used."""
        angle = state.angle - 2 * math.pi * jnp.round(state.angle / (2 * math.pi))
        torque = jnp.clip(jnp.squeeze(action, -1), -self.max_torque, self.max_torque)
        cost = jnp.square(angle) + 0.1 * jnp.square(state.velocity) + 0.001 * jnp.square(torque)

        _, sin = cos_sin(angle)
        acceleration = 3 * self.gravity / (2 * self.length) * sin + 3 / (self.mass * self.length**2) * torque
        velocity = jnp.clip(state.velocity + acceleration * self.time_step, -self.max_speed, self.max_speed)
        state = State(angle + velocity * self.time_step, velocity, state.time + 1)
        return Step(
            state,
            observation=_observe(state),
            reward=-cost,
            terminated=jnp.zeros((), bool),
            truncated=state.time >= self.max_steps,
            info={},
        )


def _observe(state: State) -> jax.Array:
    return jnp.stack([*cos_sin(state.angle), state.velocity])
