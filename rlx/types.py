"""The types that every reader of rlx meets.

Axis letters: T time, B environments, O observation. `[T, B, ...]` is time first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import jax

if TYPE_CHECKING:
    import gymnasium

PyTree = Any
Key = jax.Array  # a typed key, as jax.random.key makes it
Metrics = dict[str, jax.Array]


class Algorithm(NamedTuple):
    """A learning algorithm: pure functions over a state.

    Everything that changes lives in the state, the PRNG key too, so one pytree is the checkpoint. A state is used
    once: drivers donate it (`jax.tree.map(jnp.copy, state)` keeps one).

    Attributes:
        init: `(key) -> state`.
        step: `(state) -> (state, metrics)`. Same structure, shapes and dtypes in and out; `metrics` is a flat dict of
            scalars with the same names on every step. `metrics["episodes"]` counts the episodes that ended in this
            step and `metrics["episode_return"]` is their mean, meaningful only where `episodes > 0`.
        act: `(state, key, observation) -> action` as the policy draws it (see `vectorize` for how an action becomes
            the environment's); with key None the greedy one. Any leading axes.
        host: True where init and step leave XLA (a gymnasium environment), so that they cannot be jitted or vmapped.
    """

    init: Callable[[Key], PyTree]
    step: Callable[[PyTree], tuple[PyTree, Metrics]]
    act: Callable[[PyTree, Key | None, PyTree], jax.Array]
    host: bool = False


@dataclass(frozen=True, eq=False)
class TwoHalves:
    """A step of an algorithm that is cut in two, so that many agents may collect side by side and learn in turn.

    Attributes:
        collect: `(state) -> what learning needs`, a tuple.
        learn: `(*that) -> (state, metrics)`.
    """

    collect: Callable[[PyTree], tuple]
    learn: Callable[..., tuple[PyTree, Metrics]]

    def __call__(self, state: PyTree) -> tuple[PyTree, Metrics]:
        """Take the step: one half after the other."""
        return self.learn(*self.collect(state))


class Step(NamedTuple):
    """What an environment gives back for one action; scalars from an `Env`, `[B]` from a `VectorEnv`.

    `observation` is the true successor, never that of a new episode. `terminated` and `truncated` are booleans: the
    first ends the task (nothing follows), the second cuts the episode short (a time limit: the future still counts).
    """

    state: PyTree
    observation: PyTree
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    info: dict[str, jax.Array]


class Spaces(Protocol):
    """Anything that tells its spaces: an environment, or a recipe for one."""

    @property
    def observation_space(self) -> gymnasium.Space:
        """Space of one observation."""
        ...

    @property
    def action_space(self) -> gymnasium.Space:
        """Space of one action."""
        ...


class Env(Spaces, Protocol):
    """A JAX environment: a frozen pytree of its constants, whose functions are pure. It never resets itself."""

    def reset(self, key: Key) -> tuple[PyTree, PyTree]:
        """Begin an episode: `(state, observation)`."""
        ...

    def step(self, key: Key, state: PyTree, action: jax.Array) -> Step:
        """Advance by one action, given in the units of `action_space`."""
        ...


class VectorEnv(NamedTuple):
    """B environments side by side that reset themselves; made by `rlx.vectorize` alone.

    Attributes:
        reset: `(key) -> (state, observation)`.
        step: `(keys [2, B], state, action) -> (state, observation, step)`: `observation` is what to act on next (of a
            new episode where one ended), `step.observation` the true successor from before any reset. There is a key
            to step and one to reset each environment, so that a loop can draw all its keys before it begins.
        num_envs: B.
        observation_space: space of one environment's observation.
        action_space: space of one environment's action.
        host: True where the environments live outside XLA.
    """

    reset: Callable[[Key], tuple[PyTree, PyTree]]
    step: Callable[[Key, PyTree, jax.Array], tuple[PyTree, PyTree, Step]]
    num_envs: int
    observation_space: gymnasium.Space
    action_space: gymnasium.Space
    host: bool


class Transition(NamedTuple):
    """Facts about the world, `[T, B, ...]` from a rollout, stored raw (not normalised).

    `action` is as the policy drew it. `next_observation` is the true successor, also where the episode ended.
    """

    observation: PyTree
    action: jax.Array
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    next_observation: PyTree


class Network(Protocol):
    """A function approximator with linen's signatures; any flax linen module is one.

    Its input is an observation; that of a critic of actions an observation and an action.
    """

    def init(self, key: Key, /, *inputs: PyTree) -> PyTree:
        """Parameters, as nested dicts of arrays."""
        ...

    def apply(self, params: PyTree, /, *inputs: PyTree) -> Any:
        """Output for inputs with any leading axes."""
        ...


class Learner(NamedTuple):
    """Parameters and the optimiser's state for them."""

    params: PyTree
    opt_state: PyTree
