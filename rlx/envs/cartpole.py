"""CartPole: keep a pole upright on a cart that is pushed left or right (gymnasium's CartPole-v1)."""

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
    """Where the cart and the pole are; every field a scalar."""

    position: jax.Array  # m, of the cart; 0 is the middle of the track
    velocity: jax.Array  # m/s
    angle: jax.Array  # rad, of the pole; 0 is upright, positive leans to the right
    angular_velocity: jax.Array  # rad/s
    time: jax.Array  # int32, steps since the reset


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CartPole:
    """A pole hinged on a cart, equal to gymnasium's CartPole-v1 step for step.

    With force F, angle a, angular velocity w, masses m (pole) and M (both), half length l, gravity g:

        p   = (F + m l w^2 sin a) / M
        w'  = (g sin a - p cos a) / (l (4/3 - m cos^2 a / M))
        v'  = p - m l w' cos a / M

    advanced by explicit Euler: positions move with the velocities from before the step. Observation, float32 [4]:
    position, velocity, angle, angular velocity, at a reset each uniform in +-0.05. Action: 0 pushes left, 1 right.
    Reward 1 on every step, the last one too. Terminated where the cart or the pole is beyond its limit, truncated
    after `max_steps`; both may be set. Known good: a return of 500 (random actions: 22).

    Source: Barto, Sutton and Anderson 1983, without friction, as `gymnasium/envs/classic_control/cartpole.py`.

    The constants are leaves of the pytree, free to be traced; what sets the spaces or the time limit is static.
    """

    gravity: float = 9.8  # m/s^2
    cart_mass: float = 1.0  # kg
    pole_mass: float = 0.1  # kg
    length: float = 0.5  # m, from the hinge to the pole's centre of mass: half the pole
    force: float = 10.0  # N, of one push
    time_step: float = 0.02  # s
    max_position: float = field(default=2.4, metadata={"static": True})  # m
    max_angle: float = field(default=math.radians(12), metadata={"static": True})  # rad
    max_steps: int = field(default=500, metadata={"static": True})  # steps in an episode

    @property
    def observation_space(self) -> spaces.Box:
        """Twice the limits, so that the last observation lies within."""
        high = np.array([2 * self.max_position, np.inf, 2 * self.max_angle, np.inf], np.float32)
        return spaces.Box(-high, high, dtype=np.float32)

    @property
    def action_space(self) -> spaces.Discrete:
        """0 pushes left, 1 right."""
        return spaces.Discrete(2)

    def reset(self, key: Key) -> tuple[State, jax.Array]:
        """Begin near the upright middle: `(state, observation [4])`."""
        state = State(*(0.1 * u - 0.05 for u in uniform(key, 4)), time=jnp.zeros((), jnp.int32))
        return state, jnp.stack(state[:4])

    def step(self, key: Key, state: State, action: jax.Array) -> Step:
        """Push for one time step; `action` is an integer scalar. The key is not used."""
        position, velocity, angle, angular_velocity, time = state
        cos, sin = cos_sin(angle)
        mass = self.cart_mass + self.pole_mass
        moment = self.pole_mass * self.length

        force = jnp.where(action == 1, self.force, -self.force)
        push = (force + moment * jnp.square(angular_velocity) * sin) / mass
        angular_acceleration = (self.gravity * sin - push * cos) / (
            self.length * (4 / 3 - self.pole_mass * jnp.square(cos) / mass)
        )
        acceleration = push - moment * angular_acceleration * cos / mass

        state = State(
            position + self.time_step * velocity,
            velocity + self.time_step * acceleration,
            angle + self.time_step * angular_velocity,
            angular_velocity + self.time_step * angular_acceleration,
            time + 1,
        )
        return Step(
            state,
            observation=jnp.stack(state[:4]),
            reward=jnp.ones_like(position),
            terminated=(jnp.abs(state.position) > self.max_position) | (jnp.abs(state.angle) > self.max_angle),
            truncated=state.time >= self.max_steps,
            info={},
        )
