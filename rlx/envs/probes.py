"""Probes: tiny environments whose right values and policies are known, so that a fault shows and says where it is.

Try them in this order: each adds one thing that can be wrong. After Andy Jones, "Debugging RL, Without the Agonizing
Pain" (https://andyljones.com/posts/rl-debugging.html), and rejax's `tests/environments.py`. Observations are
float32 [1] and the state is one number, but in `Mixed`. V is the value under the best policy.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from rlx.types import Key, Step


@dataclass(frozen=True)
class _Probe:
    continuous: bool = field(default=False, metadata={"static": True})  # actions: Box(-1, 1, (1,)), else 0 and 1

    @property
    def observation_space(self) -> spaces.Box:
        """One number in [-1, 1]."""
        return spaces.Box(-1.0, 1.0, (1,), np.float32)

    @property
    def action_space(self) -> spaces.Space:
        """Two actions, or one number in [-1, 1] where `continuous`."""
        return spaces.Box(-1.0, 1.0, (1,), np.float32) if self.continuous else spaces.Discrete(2)


class _OneStep(_Probe):
    """A cue is seen, one action is rewarded, the end. The state is the cue."""

    def reset(self, key: Key) -> tuple[jax.Array, jax.Array]:
        """Show a cue: `(state [], observation [1])`."""
        cue = self._cue(key)
        return cue, cue[None]

    def step(self, key: Key, state: jax.Array, action: jax.Array) -> Step:
        """Reward the action and end."""
        choice = jnp.squeeze(action, -1) if self.continuous else 2 * jnp.float32(action) - 1  # in [-1, 1]
        return Step(state, state[None], self._reward(state, choice), jnp.ones((), bool), jnp.zeros((), bool), {})

    def _cue(self, key: Key) -> jax.Array:
        return jax.random.rademacher(key, (), jnp.float32)

    def _reward(self, cue: jax.Array, choice: jax.Array) -> jax.Array:
        raise NotImplementedError


@jax.tree_util.register_dataclass
class ConstantReward(_OneStep):
    """Observation 0, reward 1: V(0) = 1. Wrong: the value loss or the optimiser."""

    def _cue(self, key: Key) -> jax.Array:
        return jnp.zeros(())

    def _reward(self, cue: jax.Array, choice: jax.Array) -> jax.Array:
        return jnp.ones(())


@jax.tree_util.register_dataclass
class ObservationReward(_OneStep):
    """Observation -1 or 1 at random, which is the reward: V(o) = o. Wrong: the observation does not reach the value."""

    def _reward(self, cue: jax.Array, choice: jax.Array) -> jax.Array:
        return cue


@jax.tree_util.register_dataclass
class DelayedReward(_Probe):
    """Observation 0, then 1, then reward 1: V(0) = discount, V(1) = 1. Wrong: discounting or the bootstrap."""

    def reset(self, key: Key) -> tuple[jax.Array, jax.Array]:
        """Begin at 0: `(state [], observation [1])`; the state is the observation."""
        return jnp.zeros(()), jnp.zeros((1,))

    def step(self, key: Key, state: jax.Array, action: jax.Array) -> Step:
        """Go on to 1; from 1, reward and end."""
        return Step(jnp.ones(()), jnp.ones((1,)), state, state == 1, jnp.zeros((), bool), {})


@jax.tree_util.register_dataclass
class ActionReward(_OneStep):
    """Observation 0; action 1 earns 1, action 0 earns -1 (continuous: what it says): V(0) = 1. Wrong: the policy."""

    def _cue(self, key: Key) -> jax.Array:
        return jnp.zeros(())

    def _reward(self, cue: jax.Array, choice: jax.Array) -> jax.Array:
        return choice


@jax.tree_util.register_dataclass
class ObservationActionReward(_OneStep):
    """Observation -1 or 1 at random; action 0 is right for -1, action 1 for 1 (continuous: the observation itself).

    Reward 1 for the right one, -1 for the other: V = 1. Wrong: observations, actions and advantages are out of line.
    """

    def _reward(self, cue: jax.Array, choice: jax.Array) -> jax.Array:
        return cue * choice


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Clock(_Probe):
    """Reward 1 for ever, cut off after `limit` steps; observation 0, time cannot be seen: V(0) = 1 / (1 - discount).

    Code that takes truncation for termination gives the mean of (1 - discount^k) / (1 - discount) over k = 1 ... limit
    steps to go: at discount 0.9 and limit 10 it finds 4.1 where 10 is right.
    """

    limit: int = field(default=10, metadata={"static": True})  # steps in an episode

    def reset(self, key: Key) -> tuple[jax.Array, jax.Array]:
        """Begin: `(state [] int32, observation [1])`; the state is the time."""
        return jnp.zeros((), jnp.int32), jnp.zeros((1,))

    def step(self, key: Key, state: jax.Array, action: jax.Array) -> Step:
        """Tick."""
        time = state + 1
        return Step(time, jnp.zeros((1,)), jnp.ones(()), jnp.zeros((), bool), time >= self.limit, {})


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ContinuousTarget(_OneStep):
    """Observation -1 or 1 at random, reward -(action - observation / 2)^2: best action observation / 2, V = 0.

    Wrong: the policy gradient of a Normal, or the way an action is squashed and rescaled.
    """

    continuous: bool = field(default=True, metadata={"static": True})  # as above

    def _reward(self, cue: jax.Array, choice: jax.Array) -> jax.Array:
        return -jnp.square(choice - 0.5 * cue)


class Cues(NamedTuple):
    """The state of `Mixed`."""

    bright: jax.Array  # int32, 0 or 1
    choice: jax.Array  # int32, 0 to 2


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Mixed:
    """Two cues and two choices in one step: an image that is dark or bright, and a number of three.

    Observation: `{"observation": {"choice" int32, "image" uint8 [3, 3, 1], "number" float32 [1]}, "action_mask"
    int8 [5]}`, where the number is always 0.5 and the mask rules out, of the second choice, the action after the right
    one. Action: MultiDiscrete [2, 3], the second counted from 5. Reward 1/2 for each cue repeated: V = 1. Wrong: how
    observations of several arrays are encoded, or how choices and masks are lined up.
    """

    @property
    def observation_space(self) -> spaces.Dict:
        """What is seen, and what is allowed."""
        seen = {
            "choice": spaces.Discrete(3),
            "image": spaces.Box(0, 255, (3, 3, 1), np.uint8),
            "number": spaces.Box(-np.inf, np.inf, (1,), np.float32),
        }
        return spaces.Dict({"observation": spaces.Dict(seen), "action_mask": spaces.MultiBinary(5)})

    @property
    def action_space(self) -> spaces.MultiDiscrete:
        """The two choices."""
        return spaces.MultiDiscrete([2, 3], start=[0, 5])

    def reset(self, key: Key) -> tuple[Cues, dict]:
        """Show cues: `(state, observation)`."""
        bright_key, choice_key = jax.random.split(key)
        state = Cues(jax.random.randint(bright_key, (), 0, 2), jax.random.randint(choice_key, (), 0, 3))
        return state, self.observe(state)

    def step(self, key: Key, state: Cues, action: jax.Array) -> Step:
        """Reward the choices and end."""
        reward = 0.5 * (action[0] == state.bright) + 0.5 * (action[1] - 5 == state.choice)
        return Step(state, self.observe(state), reward, jnp.ones((), bool), jnp.zeros((), bool), {})

    def observe(self, state: Cues) -> dict:
        """Observation of a state."""
        mask = jnp.arange(-2, 3) != (state.choice + 1) % 3
        seen = {
            "choice": state.choice,
            "image": jnp.full((3, 3, 1), 255 * state.bright, jnp.uint8),
            "number": jnp.full((1,), 0.5),
        }
        return {"observation": seen, "action_mask": mask.astype(jnp.int8)}
