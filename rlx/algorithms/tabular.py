"""Learning a table of action values: Q-learning, SARSA, expected SARSA, and each with planning (Dyna).

Axes: B environments, S states, A actions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from gymnasium import spaces

from rlx.core.config import require, require_counts, require_finite, require_fraction
from rlx.core.rollout import RolloutState, rollout, start_rollout
from rlx.envs.host import Gymnasium
from rlx.envs.vectorize import vectorize
from rlx.ops.bellman import q_learning_target
from rlx.ops.exploration import epsilon_policy
from rlx.types import Algorithm, Env, Key, Metrics, Transition


@dataclass(frozen=True)
class TabularConfig:
    """Hyperparameters of the tabular learners. They learn from each step of the environments as it is taken."""

    num_envs: int = 1  # environments side by side, B; they share the table
    num_steps: int = 100  # steps of each environment per algorithm step; how often there are metrics
    discount: float = 0.99  # gamma; 0.9 to 1
    step_size: float = 0.1  # share of the way to its target that an action value goes; above 0, to 1
    step_size_power: float = 0.0  # step_size / visits^power; 0: constant; above 0.5, to 1: settles in random worlds
    exploration: float = 0.1  # what the policy takes: epsilon (0 to 1), temperature or bonus (in units of the return)
    initial_value: float = 0.0  # of every action, in units of the return; above what is possible: tries everything
    planning_steps: int = 0  # Dyna: updates from remembered rows after each real one; 0: none; 5 to 50

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require_finite(self)
        require_counts(self, "num_envs", "num_steps")
        require_fraction(self, "discount", "step_size", "step_size_power")
        require(self, self.step_size > 0, "must be above 0", "step_size")
        require(self, self.exploration >= 0, "must not be negative", "exploration")
        whole = isinstance(self.planning_steps, int) and self.planning_steps >= 0
        require(self, whole, "must be an integer of 0 or more", "planning_steps")

    @property
    def env_steps(self) -> int:
        """Environment steps that one algorithm step takes."""
        return self.num_envs * self.num_steps


class Model(NamedTuple):
    """What came of each action the last time; means something where it was ever taken."""

    reward: jax.Array  # [S, A]
    terminated: jax.Array  # [S, A] bool
    next_state: jax.Array  # [S, A] int32


class TabularState(NamedTuple):
    """Everything that changes.

    Attributes:
        key: the PRNG key.
        q: `[S, A]` action values.
        count: `[S, A]` int32, how often each action was taken.
        rollout: where the environments stand.
        action: `[B]` int32, drawn for where they stand and not taken yet.
        model: what Dyna remembers, or None.
    """

    key: Key
    q: jax.Array
    count: jax.Array
    rollout: RolloutState
    action: jax.Array
    model: Model | None


def td_control(
    env: Env | Gymnasium,
    target: Callable = q_learning_target,
    policy: Callable = epsilon_policy,
    config: TabularConfig = TabularConfig(),
) -> Algorithm:
    """Make a learner of a table of action values (Sutton and Barto 2018, sec. 6.4 to 6.6 and 8.2).

        Q(s, a) <- Q(s, a) + step_size * (target - Q(s, a))

    Only the target tells the algorithms apart: `rlx.ops.q_learning_target` (off-policy: the best policy's values,
    whoever acts), `sarsa_target` (on-policy: the acting policy's values, with the action that it really takes next)
    and `expected_sarsa_target`. With `planning_steps` each is its Dyna: it repeats updates of actions that it
    remembers, drawn evenly, with what came of each the last time.

    A termination cuts the bootstrap. A truncation does not: the next action is then drawn in the true successor, where
    the policy would have taken it. The next action is drawn before the table moves, as SARSA has it; textbook
    Q-learning draws it after, which differs only where the next state is the same one.

    Where several environments took the same action in the same state at once, n say, their updates count as n that
    follow one another, towards the mean of their targets.

    Args:
        env: a JAX environment with Discrete observations and actions.
        target: `(reward, terminated, next_q, next_policy, next_action, discount) -> target`.
        policy: `(q [..., A], count [..., A], exploration) -> Categorical`; `rlx.ops.epsilon_policy`,
            `softmax_policy`, `ucb_policy`.
        config: hyperparameters.

    Raises:
        ValueError: a host environment, or spaces that are not Discrete.
    """
    env, num_states, num_actions, first_state = _check(env)
    envs = vectorize(env, config.num_envs)

    def draw(q: jax.Array, count: jax.Array, key: Key, position: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Probabilities `[..., A]` in states `[...]`, and actions drawn from them."""
        distribution = policy(q[position], count[position], config.exploration)
        return jax.nn.softmax(distribution.logits), distribution.sample(key)

    def goal_of(q: jax.Array, count: jax.Array, row: Model, key: Key) -> tuple[jax.Array, jax.Array]:
        """Targets of rows, and the actions that come next."""
        next_policy, next_action = draw(q, count, key, row.next_state)
        goal = target(row.reward, row.terminated, q[row.next_state], next_policy, next_action, config.discount)
        return goal, next_action

    def init(key: Key) -> TabularState:
        key, env_key, action_key = jax.random.split(key, 3)
        shape = num_states, num_actions
        q, count = jnp.full(shape, config.initial_value, jnp.float32), jnp.zeros(shape, jnp.int32)
        rollout_state = start_rollout(envs, env_key)
        _, action = draw(q, count, action_key, rollout_state.observation - first_state)
        model = None
        if config.planning_steps:
            model = Model(jnp.zeros(shape), jnp.zeros(shape, bool), jnp.zeros(shape, jnp.int32))
        return TabularState(key, q, count, rollout_state, action, model)

    def act(state: TabularState, key: Key | None, observation: jax.Array) -> jax.Array:
        position = observation - first_state
        if key is None:
            return jnp.argmax(state.q[position], axis=-1).astype(jnp.int32)
        return draw(state.q, state.count, key, position)[1]

    def one(state: TabularState, key: Key) -> tuple[TabularState, Metrics]:
        env_key, next_key, first_key, planning_key = jax.random.split(key, 4)
        taken = lambda action, key, observation: action  # noqa: E731
        rollout_state, transitions, metrics = rollout(envs, taken, state.action, state.rollout, env_key, 1)
        row: Transition = jax.tree.map(lambda x: x[0], transitions)
        here = row.observation - first_state
        came = Model(row.reward, row.terminated, row.next_observation - first_state)
        goal, next_action = goal_of(state.q, state.count, came, next_key)
        metrics["td_error"] = jnp.mean(jnp.abs(goal - state.q[here, row.action]))
        count = state.count.at[here, row.action].add(1)
        q = move_towards(state.q, count, here, row.action, goal, config.step_size, config.step_size_power)
        model = state.model
        if model is not None:
            model = remember(model, here, row.action, came)
            q = plan(q, count, model, planning_key, goal_of, config)

        _, first_action = draw(q, count, first_key, rollout_state.observation - first_state)
        action = jnp.where(row.terminated | row.truncated, first_action, next_action)
        return TabularState(state.key, q, count, rollout_state, action, model), metrics

    def step(state: TabularState) -> tuple[TabularState, Metrics]:
        key, steps_key = jax.random.split(state.key)
        state, rows = jax.lax.scan(one, state._replace(key=key), jax.random.split(steps_key, config.num_steps))
        return state, summarize(rows) | {"tried": jnp.mean(state.count > 0)}

    return Algorithm(init, step, act)


def plan(q: jax.Array, count: jax.Array, model: Model, key: Key, goal_of: Callable, config: TabularConfig) -> jax.Array:
    """Learn from B remembered actions, drawn evenly, `planning_steps` times."""

    def again(q: jax.Array, key: Key) -> tuple[jax.Array, None]:
        pair_key, action_key = jax.random.split(key)
        here, action = remembered(pair_key, count, config.num_envs)
        row: Model = jax.tree.map(lambda x: x[here, action], model)
        goal, _ = goal_of(q, count, row, action_key)
        return move_towards(q, count, here, action, goal, config.step_size, config.step_size_power), None

    return jax.lax.scan(again, q, jax.random.split(key, config.planning_steps))[0]


def move_towards(
    q: jax.Array,
    count: jax.Array,
    state: jax.Array,
    action: jax.Array,
    target: jax.Array,
    step_size: float,
    step_size_power: float,
) -> jax.Array:
    """Move action values towards targets by a step size `c = step_size / count^step_size_power`.

    n rows of the same state and action move its value by `1 - (1 - c)^n` of the way to the mean of their targets: as
    far as one after the other would, and never beyond.

    Args:
        q: `[S, A]` action values.
        count: `[S, A]` how often each action was taken, these rows included.
        state: `[N]` int32.
        action: `[N]` int32.
        target: `[N]`.
        step_size: above 0, to 1.
        step_size_power: 0 to 1.

    Returns:
        `[S, A]`.
    """
    together = jnp.zeros_like(count).at[state, action].add(1)[state, action]  # [N], rows of the same pair
    visits = jnp.maximum(count[state, action], 1)
    rate = step_size / visits.astype(jnp.float32) ** step_size_power
    share = (1.0 - (1.0 - rate) ** together) / together
    return q.at[state, action].add(share * (target - q[state, action]))


def remember(model: Model, state: jax.Array, action: jax.Array, row: Model) -> Model:
    """Write what came of actions `[N]` in states `[N]`; of rows for the same pair one stays, whole."""
    num_states, num_actions = model.reward.shape
    order = jnp.arange(state.size)
    last = jnp.full((num_states, num_actions), -1).at[state, action].max(order)[state, action]  # [N]
    return jax.tree.map(lambda table, new: table.at[state, action].set(new[last]), model, row)


def remembered(key: Key, count: jax.Array, num_rows: int) -> tuple[jax.Array, jax.Array]:
    """Draw N pairs of a state `[N]` and an action `[N]` evenly from those with a count above 0, with replacement."""
    up_to = jnp.cumsum(count.ravel() > 0)
    rank = jax.random.randint(key, (num_rows,), 0, up_to[-1])
    return jnp.divmod(jnp.searchsorted(up_to, rank, side="right"), count.shape[1])


def summarize(rows: Metrics) -> Metrics:
    """Means of metrics `[T]`; those of episodes weigh by how many ended."""
    episodes = rows["episodes"].sum()
    mean = {
        name: (rows["episodes"] * rows[name]).sum() / episodes.clip(1) for name in ("episode_return", "episode_length")
    }
    return mean | {"episodes": episodes, "td_error": rows["td_error"].mean()}


def _check(env: Env | Gymnasium) -> tuple[Env, int, int, int]:
    """The environment, S, A and the first state's number."""
    if isinstance(env, Gymnasium):
        raise ValueError("tabular learners step inside XLA: a host environment is not supported")
    seen, done = env.observation_space, env.action_space
    if not isinstance(seen, spaces.Discrete) or not isinstance(done, spaces.Discrete):
        raise ValueError(f"tabular learners need Discrete observations and actions, not {seen} and {done}")
    return env, int(seen.n), int(done.n), int(seen.start)
