"""An environment made from a finite MDP. Axes: S states, A actions, K outcomes of an action in a state."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from rlx.envs.elementwise import uniform
from rlx.ops.bellman import MDP
from rlx.types import Key, Step


class State(NamedTuple):
    """Where an episode stands; both int32 scalars."""

    position: jax.Array  # the MDP's state
    time: jax.Array  # steps since the reset


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TabularEnv:
    """A finite MDP to act in: the observation is the state's number, int32.

    Terminated where the outcome says so, truncated after `max_steps`; both may be set. The tables are leaves of the
    pytree, free to be traced. A policy that never ends an episode is never cut off where `max_steps` is None.
    """

    mdp: MDP
    max_steps: int | None = field(default=None, metadata={"static": True})  # steps in an episode; None: no limit

    @property
    def observation_space(self) -> spaces.Discrete:
        """The states."""
        return spaces.Discrete(self.mdp.probability.shape[0])

    @property
    def action_space(self) -> spaces.Discrete:
        """The actions."""
        return spaces.Discrete(self.mdp.probability.shape[1])

    def reset(self, key: Key) -> tuple[State, jax.Array]:
        """Begin in a state drawn from the initial distribution: `(state, observation [])`."""
        position = _draw(key, self.mdp.initial)
        return State(position, jnp.zeros((), jnp.int32)), jnp.copy(position)

    def step(self, key: Key, state: State, action: jax.Array) -> Step:
        """Draw an outcome of `action`, an integer scalar."""
        here: MDP = jax.tree.map(lambda x: x[state.position, action], self.mdp._replace(initial=None))
        outcome = _draw(key, here.probability)
        time = state.time + 1
        truncated = jnp.zeros((), bool) if self.max_steps is None else time >= self.max_steps
        next_state = here.next_state[outcome]
        return Step(State(next_state, time), next_state, here.reward[outcome], here.terminated[outcome], truncated, {})


def _draw(key: Key, probability: jax.Array) -> jax.Array:
    """Draw an index of `[N]` probabilities, never one of probability 0."""
    if probability.size == 1:
        return jnp.zeros((), jnp.int32)
    (u,) = uniform(key, 1)
    cumulative = jnp.cumsum(probability)
    level = (1.0 - u) * cumulative[-1]  # above 0, not above the sum: rounding cannot lead beyond the last one
    return jnp.sum(cumulative < level, dtype=jnp.int32)


def from_tables(
    probability: np.ndarray,
    next_state: np.ndarray,
    reward: np.ndarray,
    terminated: np.ndarray,
    initial: np.ndarray,
    max_steps: int | None,
) -> TabularEnv:
    """Make an environment of tables, each `[S, A, K]` but `initial` `[S]`, in the types of the device."""
    mdp = MDP(
        jnp.asarray(probability, jnp.float32),
        jnp.asarray(next_state, jnp.int32),
        jnp.asarray(reward, jnp.float32),
        jnp.asarray(terminated, bool),
        jnp.asarray(initial, jnp.float32),
    )
    return TabularEnv(mdp, max_steps)


def from_sure_tables(
    next_state: np.ndarray, reward: np.ndarray, terminated: np.ndarray, initial: np.ndarray, max_steps: int | None
) -> TabularEnv:
    """Make an environment where each action has one outcome: tables `[S, A]` but `initial` `[S]`."""
    one = np.ones((*next_state.shape, 1))
    return from_tables(one, next_state[..., None], reward[..., None], terminated[..., None], initial, max_steps)
