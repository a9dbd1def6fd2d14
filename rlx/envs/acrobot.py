"""Acrobot: swing the tip of a two-link pendulum up with a motor in its elbow (gymnasium's Acrobot-v1)."""

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
    """Where the links are; every field a scalar."""

    shoulder: jax.Array  # rad in [-pi, pi], of the first link; 0 hangs down
    elbow: jax.Array  # rad in [-pi, pi], of the second link against the first; 0 is stretched
    shoulder_velocity: jax.Array  # rad/s
    elbow_velocity: jax.Array  # rad/s
    time: jax.Array  # int32, steps since the reset


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Acrobot:
    """Two links hung from a fixed shoulder, a motor in the elbow; equal to gymnasium's Acrobot-v1 step for step.

    With angles a (shoulder) and b (elbow), torque u, masses m1, m2, length l of the first link, distances c1, c2 from
    each joint to its link's centre of mass, moment of inertia I of either link, gravity g:

        d1 a'' + d2 b'' = -p1                                  d1 = m1 c1^2 + m2 (l^2 + c2^2 + 2 l c2 cos b) + 2 I
        d2 a'' + d3 b'' = u - m2 l c2 a'^2 sin b - p2          d2 = m2 (c2^2 + l c2 cos b) + I,  d3 = m2 c2^2 + I
        p1 = -m2 l c2 (b'^2 + 2 a' b') sin b + (m1 c1 + m2 l) g sin a + p2,    p2 = m2 c2 g sin(a + b)

    advanced by one step of the classical Runge-Kutta method; then angles are wrapped to [-pi, pi] and velocities
    clipped. Observation, float32 [6]: cos a, sin a, cos b, sin b, a', b'; at a reset both angles and both velocities
    are uniform in +-0.1. Action: 0, 1, 2 for a torque of -1, 0, 1 times `torque`. Terminated where the tip is higher
    than one link above the shoulder, -cos a - cos(a + b) > 1, truncated after `max_steps`; both may be set. Reward -1
    on every step, 0 on the one that terminates. Known good: a return of about -80 (random actions: -500, as nearly no
    episode reaches the goal).

    Source: Sutton 1996; the equations as in Sutton and Barto's book, as `gymnasium/envs/classic_control/acrobot.py`.

    The constants are leaves of the pytree, free to be traced; what sets the spaces or the time limit is static.
    """

    gravity: float = 9.8  # m/s^2
    mass_1: float = 1.0  # kg, of the first link
    mass_2: float = 1.0  # kg, of the second
    length: float = 1.0  # m, of the first link
    centre_1: float = 0.5  # m, from the shoulder to the first link's centre of mass
    centre_2: float = 0.5  # m, from the elbow to the second link's centre of mass
    inertia: float = 1.0  # kg m^2, of either link about its centre of mass
    torque: float = 1.0  # N m, of the motor
    time_step: float = 0.2  # s
    max_shoulder_speed: float = field(default=4 * math.pi, metadata={"static": True})  # rad/s
    max_elbow_speed: float = field(default=9 * math.pi, metadata={"static": True})  # rad/s
    max_steps: int = field(default=500, metadata={"static": True})  # steps in an episode

    @property
    def observation_space(self) -> spaces.Box:
        """Cosine and sine of both angles, both velocities."""
        high = np.array([1.0, 1.0, 1.0, 1.0, self.max_shoulder_speed, self.max_elbow_speed], np.float32)
        return spaces.Box(-high, high, dtype=np.float32)

    @property
    def action_space(self) -> spaces.Discrete:
        """0, 1, 2 for a negative, no and a positive torque."""
        return spaces.Discrete(3)

    def reset(self, key: Key) -> tuple[State, jax.Array]:
        """Begin hanging down, nearly at rest: `(state, observation [6])`."""
        state = State(*(0.2 * u - 0.1 for u in uniform(key, 4)), time=jnp.zeros((), jnp.int32))
        return state, jnp.stack(_observe(state))

    def step(self, key: Key, state: State, action: jax.Array) -> Step:
        """Apply the torque for one time step; `action` is an integer scalar. The key is not used."""
        torque = self.torque * (action - 1)
        shoulder, elbow, shoulder_velocity, elbow_velocity = self._runge_kutta(state[:4], torque)
        state = State(
            _wrap(shoulder),
            _wrap(elbow),
            jnp.clip(shoulder_velocity, -self.max_shoulder_speed, self.max_shoulder_speed),
            jnp.clip(elbow_velocity, -self.max_elbow_speed, self.max_elbow_speed),
            state.time + 1,
        )
        observation = _observe(state)
        cos_a, sin_a, cos_b, sin_b, _, _ = observation
        terminated = -cos_a - (cos_a * cos_b - sin_a * sin_b) > 1.0
        return Step(
            state,
            observation=jnp.stack(observation),
            reward=terminated.astype(jnp.float32) - 1.0,
            terminated=terminated,
            truncated=state.time >= self.max_steps,
            info={},
        )

    def _derivative(self, links: tuple[jax.Array, ...], torque: jax.Array) -> tuple[jax.Array, ...]:
        """Time derivative of `(a, b, a', b')`, by the equations above."""
        shoulder, elbow, shoulder_velocity, elbow_velocity = links
        cos_a, sin_a = cos_sin(shoulder)
        cos, sin = cos_sin(elbow)
        coupling = self.mass_2 * self.length * self.centre_2
        d3 = self.mass_2 * self.centre_2**2 + self.inertia
        d2 = d3 + coupling * cos
        d1 = self.mass_1 * self.centre_1**2 + self.inertia + self.mass_2 * self.length**2 + d2 + coupling * cos
        p2 = self.mass_2 * self.centre_2 * self.gravity * (sin_a * cos + cos_a * sin)
        p1 = (
            -coupling * elbow_velocity * (elbow_velocity + 2 * shoulder_velocity) * sin
            + (self.mass_1 * self.centre_1 + self.mass_2 * self.length) * self.gravity * sin_a
            + p2
        )
        rest = torque - coupling * jnp.square(shoulder_velocity) * sin - p2
        # Two divisions, not one reciprocal: XLA repeats what feeds a product for each of its users, through all four
        # stages of Runge-Kutta (100 times slower on CPU), but nothing that feeds a division.
        determinant = d1 * d3 - jnp.square(d2)
        shoulder_acceleration = -(d3 * p1 + d2 * rest) / determinant
        elbow_acceleration = (d2 * p1 + d1 * rest) / determinant
        return shoulder_velocity, elbow_velocity, shoulder_acceleration, elbow_acceleration

    def _runge_kutta(self, links: tuple[jax.Array, ...], torque: jax.Array) -> tuple[jax.Array, ...]:
        """One step of fourth order under a constant torque."""

        def ahead(slope: tuple[jax.Array, ...], time: float) -> tuple[jax.Array, ...]:
            return tuple(x + time * dx for x, dx in zip(links, slope, strict=True))

        k1 = self._derivative(links, torque)
        k2 = self._derivative(ahead(k1, self.time_step / 2), torque)
        k3 = self._derivative(ahead(k2, self.time_step / 2), torque)
        k4 = self._derivative(ahead(k3, self.time_step), torque)
        mean = tuple((a + 2 * b + 2 * c + d) / 6 for a, b, c, d in zip(k1, k2, k3, k4, strict=True))
        return ahead(mean, self.time_step)


def _wrap(angle: jax.Array) -> jax.Array:
    return angle - 2 * math.pi * jnp.round(angle / (2 * math.pi))


def _observe(state: State) -> tuple[jax.Array, ...]:
    return *cos_sin(state.shoulder), *cos_sin(state.elbow), state.shoulder_velocity, state.elbow_velocity
