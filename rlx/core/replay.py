"""A replay of what was seen: a ring of steps, sampled uniformly or by priority, read as n-step transitions.

Axes: C capacity in steps, B environments, T steps that come in, N rows of a batch, R = C * B rows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlx.core.config import require
from rlx.core.rollout import Policy, RolloutState, rollout, start_rollout
from rlx.ops.random import bits, uniform
from rlx.types import Key, PyTree, Transition, VectorEnv


class Replay(NamedTuple):
    """The last C steps of B environments.

    Attributes:
        rows: transitions `[C, B, ...]`, each leaf in the type that it came in.
        next: scalar int32, where the next step goes.
        size: scalar int32, steps that are held, up to C.
    """

    rows: Transition
    next: jax.Array
    size: jax.Array


class Batch(NamedTuple):
    """Rows to learn from: what happened in up to n steps from an observation on.

    Attributes:
        observation: `[N, ...]`.
        action: `[N, ...]`, the first.
        reward: `[N]`, discounted sum over the steps.
        terminated: `[N]`, whether the last of the steps ended the task.
        next_observation: `[N, ...]`, true successor of the last of the steps.
        discount: `[N]`, gamma to the number of steps: the weight of what follows.
    """

    observation: PyTree
    action: jax.Array
    reward: jax.Array
    terminated: jax.Array
    next_observation: PyTree
    discount: jax.Array


def init_replay(transitions: Transition, capacity: int) -> Replay:
    """Make a replay of `capacity` steps C that holds the last of these `[T, B, ...]` (a prefill)."""
    rows = jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape[1:]), x.dtype), transitions)
    empty = Replay(rows, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))
    return add(empty, jax.tree.map(lambda x: x[-capacity:], transitions))


def add(replay: Replay, transitions: Transition) -> Replay:
    """Write T steps `[T, B, ...]` over the oldest ones; in place, where the replay is donated or carried by a loop."""
    capacity = replay.rows.reward.shape[0]
    length = jax.tree.leaves(transitions)[0].shape[0]
    steps = np.arange(length)
    if length == 1:  # it is written twice: XLA would update a slice and fuse that into the reads, which copies the ring
        steps, transitions = np.zeros(2, int), jax.tree.map(lambda x: jnp.concatenate([x, x]), transitions)
    places = (replay.next + steps) % capacity
    rows = jax.tree.map(lambda ring, x: ring.at[places].set(x), replay.rows, transitions)
    return Replay(rows, (replay.next + length) % capacity, jnp.minimum(replay.size + length, capacity))


def held_rows(replay: Replay) -> jax.Array:
    """How many rows are held, scalar int32."""
    return replay.size * replay.rows.reward.shape[1]


def sample_rows(key: Key, replay: Replay, shape: tuple[int, ...]) -> jax.Array:
    """Draw rows uniformly, with replacement: int32 `shape`, each `step * B + environment`.

    One draw of random bits, whatever the capacity: the high half of the product of 32 random bits and the count.
    """
    count = held_rows(replay)
    drawn = bits(key, shape)
    with jax.enable_x64(True):
        return ((drawn.astype(jnp.uint64) * count.astype(jnp.uint64)) >> 32).astype(jnp.int32)


def read(replay: Replay, rows: jax.Array, discount: float, num_steps: int = 1) -> Batch:
    """Assemble n-step transitions from rows on (Sutton 1988; Hessel et al. 2017, arXiv 1710.02298).

        reward = sum_{k < m} discount^k r_{t+k},   discount^m weighs what follows the m-th step

    where m is n = `num_steps`, or fewer: the steps end with the first that is `terminated | truncated`, as the row
    after it belongs to another episode, and with the newest in the replay. The successor is that last row's own.

    Args:
        replay: where the rows are.
        rows: `[N]` int32, from `sample_rows`.
        discount: gamma.
        num_steps: n, at least 1.
    """
    capacity, num_envs = replay.rows.reward.shape
    step, env = rows // num_envs, rows % num_envs
    if num_steps == 1:
        row: Transition = jax.tree.map(lambda x: x[step, env], replay.rows)
        weight = jnp.full(row.reward.shape, discount, row.reward.dtype)
        return Batch(row.observation, row.action, row.reward, row.terminated, row.next_observation, weight)
    ahead = jnp.arange(num_steps)[:, None]  # [n, 1]
    at = ((step + ahead) % capacity, env)
    reward = replay.rows.reward[at]  # [n, N]
    newest = (replay.next - 1 - step) % capacity <= ahead
    ends = replay.rows.terminated[at] | replay.rows.truncated[at] | newest
    last = jnp.where(jnp.any(ends, axis=0), jnp.argmax(ends, axis=0), num_steps - 1)  # [N], steps less one
    powers = jnp.power(discount, ahead)
    total = jnp.sum(jnp.where(ahead <= last, powers * reward, 0.0), axis=0)
    end = ((step + last) % capacity, env)
    observation, action = jax.tree.map(lambda x: x[step, env], (replay.rows.observation, replay.rows.action))
    successor = jax.tree.map(lambda x: x[end], replay.rows.next_observation)
    weight = jnp.power(discount, last + 1.0)
    return Batch(observation, action, total, replay.rows.terminated[end], successor, weight)


class Priorities(NamedTuple):
    """A binary tree of sums over the rows' priorities: each node is the sum of the two below it.

    Attributes:
        tree: `[2 L]` float32, L the least power of 2 that is R or more; node i has the children 2i and 2i + 1, the
            root is 1, and row r is node L + r. Rows that hold nothing yet have priority 0.
        highest: scalar, the highest priority so far, which new rows get: each is seen at least once or so.
    """

    tree: jax.Array
    highest: jax.Array


def init_priorities(replay: Replay) -> Priorities:
    """Give every row that is held priority 1."""
    capacity, num_envs = replay.rows.reward.shape
    leaves = 1 << (capacity * num_envs - 1).bit_length()
    level = (jnp.arange(leaves) < held_rows(replay)).astype(jnp.float32)
    levels = [level]
    while levels[-1].shape[0] > 1:
        levels.append(levels[-1].reshape(-1, 2).sum(axis=1))
    return Priorities(jnp.concatenate([jnp.zeros(1), *reversed(levels)]), jnp.ones(()))


def set_priorities(priorities: Priorities, rows: jax.Array, priority: jax.Array) -> Priorities:
    """Give rows `[N]` priorities `[N]`, at least 0, in O(N log R); of a row that is there twice, one counts."""
    tree, leaves = priorities.tree, priorities.tree.shape[0] // 2
    node = rows + leaves
    tree = tree.at[node].set(priority)

    def up(_: int, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        tree, node = carry
        node = node // 2
        return tree.at[node].set(tree[2 * node] + tree[2 * node + 1]), node

    tree, _ = jax.lax.fori_loop(0, leaves.bit_length() - 1, up, (tree, node))
    return Priorities(tree, jnp.maximum(priorities.highest, jnp.max(priority)))


def prioritize_new(priorities: Priorities, before: Replay, length: int) -> Priorities:
    """Give the rows of the `length` steps that are added to the replay `before` the highest priority so far."""
    capacity, num_envs = before.rows.reward.shape
    steps = (before.next + jnp.arange(length)) % capacity
    rows = (steps[:, None] * num_envs + jnp.arange(num_envs)).ravel()
    return set_priorities(priorities, rows, jnp.broadcast_to(priorities.highest, rows.shape))


def sample_by_priority(key: Key, priorities: Priorities, num_rows: int) -> tuple[jax.Array, jax.Array]:
    """Draw rows in proportion to their priority (Schaul et al. 2015, arXiv 1511.05952, appendix B.2.1), O(N log R).

    The total is cut into N equal ranges, and one point drawn in each: every row's expected count is exactly its share
    of the total times N.

    Returns:
        Rows `[N]` int32, and the probability `[N]` of each: its priority's share.
    """
    tree, leaves = priorities.tree, priorities.tree.shape[0] // 2
    total = tree[1]
    point = (jnp.arange(num_rows) + uniform(key, (num_rows,))) / num_rows * total

    def down(_: int, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        node, point = carry
        left, right = tree[2 * node], tree[2 * node + 1]
        goes_right = (point >= left) & (right > 0.0)  # never, by rounding, to rows of priority 0
        return 2 * node + goes_right, jnp.where(goes_right, point - left, point)

    node, _ = jax.lax.fori_loop(0, leaves.bit_length() - 1, down, (jnp.ones(num_rows, jnp.int32), point))
    return node - leaves, tree[node] / total


def importance_weights(probability: jax.Array, count: jax.Array, exponent: float) -> jax.Array:
    """Weights that undo, at exponent 1, the bias of sampling by priority (arXiv 1511.05952, sec. 3.4).

        w_i = (count * P(i))^-exponent / max_j w_j

    Args:
        probability: `[N]` P(i), from `sample_by_priority`.
        count: rows held in the replay.
        exponent: beta, 0 (no correction) to 1 (a full one).
    """
    log_weight = -exponent * jnp.log(count * probability)
    return jnp.exp(log_weight - jnp.max(log_weight))


def prefill(
    env: VectorEnv, policy: Policy, actor: PyTree, key: Key, rows: int, capacity: int, hold: int = 1
) -> tuple[RolloutState, Replay]:
    """Begin episodes and let a policy act before anything is learnt.

    Args:
        env: B environments.
        policy: `(actor, key, observation [B, ...]) -> action`; `uniform_policy` makes one.
        actor: what it needs.
        key: for the policy and the environments.
        rows: how many to collect, a multiple of B.
        capacity: rows that the replay has room for, a multiple of B.
        hold: steps for which each action is held; `rows` is a multiple of `hold * B`.

    Returns:
        Where the environments stand, and a replay that holds the last of the rows.
    """
    reset_key, rollout_key = jax.random.split(key)
    state = start_rollout(env, reset_key)
    steps = rows // env.num_envs
    if hold == 1:
        state, transitions, _ = rollout(env, policy, actor, state, rollout_key, steps)
    else:
        state, transitions = _rollout_held(env, policy, actor, state, rollout_key, steps // hold, hold)
    return state, init_replay(transitions, capacity // env.num_envs)


def _rollout_held(
    env: VectorEnv, policy: Policy, actor: PyTree, state: RolloutState, key: Key, blocks: int, hold: int
) -> tuple[RolloutState, Transition]:
    """Roll out in blocks of `hold` steps, each with the one action that the policy draws at its start."""

    def block(state: RolloutState, key: Key) -> tuple[RolloutState, Transition]:
        action_key, rollout_key = jax.random.split(key)
        action = policy(actor, action_key, state.observation)
        state, transitions, _ = rollout(env, _same, action, state, rollout_key, hold)
        return state, transitions

    keys = jax.random.split(key, blocks)
    if not env.host:
        state, transitions = jax.lax.scan(block, state, keys)
        return state, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), transitions)
    rows = []
    for each in keys:
        state, transitions = block(state, each)
        rows.append(transitions)
    return state, jax.tree.map(lambda *leaves: np.concatenate(leaves), *rows)


def _same(action: jax.Array, key: Key, observation: PyTree) -> jax.Array:
    """The policy whose actor is the action."""
    return action


def require_replay(config: Any) -> None:
    """Raise a ValueError unless the sizes of a replay, `num_envs`, `num_steps`, `prefill` and `replay_size`, fit."""
    for name in ("prefill", "replay_size"):
        require(config, getattr(config, name) % config.num_envs == 0, "must be a multiple of num_envs", name)
    fits = config.num_envs * config.num_steps <= config.replay_size
    require(config, fits, "replay_size must hold the rows of one step", "replay_size", "num_envs", "num_steps")
