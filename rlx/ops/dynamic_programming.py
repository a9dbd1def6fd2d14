"""Solving a finite MDP that is known: policy evaluation, value iteration, policy iteration.

Axes: S states, A actions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlx.ops.bellman import MDP, action_values, bellman_expectation, bellman_optimality, policy_values


class Solution(NamedTuple):
    """What an iteration came to.

    Attributes:
        value: `[S]` V.
        action: `[S]` int32, the first of the best actions by V.
        iterations: int32, backups or improvements made.
        error: bound on the largest |V - right V|, rounding aside.
    """

    value: jax.Array
    action: jax.Array
    iterations: jax.Array
    error: jax.Array


def policy_evaluation(
    mdp: MDP, policy: jax.Array, discount: float, tolerance: float = 1e-4, max_iterations: int = 10_000
) -> Solution:
    """Find V_pi by repeated backups, `V <- T_pi V` (Sutton and Barto 2018, sec. 4.1); `policy_values` is exact.

    Stopping rule and bound as in `value_iteration`.

    Args:
        mdp: the process.
        policy: `[S, A]` pi(a|s).
        discount: gamma, 0 to 1.
        tolerance: largest error allowed in V.
        max_iterations: stop there in any case.

    Returns:
        V_pi, and the greedy action beside it (an improvement on pi).
    """
    return _iterate(
        lambda value: bellman_expectation(mdp, policy, value, discount), mdp, discount, tolerance, max_iterations
    )


def value_iteration(mdp: MDP, discount: float, tolerance: float = 1e-4, max_iterations: int = 10_000) -> Solution:
    """Find V* by repeated backups, `V <- T V` from V = 0 (Sutton and Barto 2018, sec. 4.4).

    T contracts distances by `discount`, so one knows when to stop:

        |V_{k+1} - V*| <= discount / (1 - discount) * |V_{k+1} - V_k|      (maximum norms; Puterman 1994, th. 6.3.1)

    It stops once that bound is below the tolerance. The greedy policy then loses at most `2 * tolerance * discount
    / (1 - discount)`. At discount 1 there is no bound: it stops where V no longer changes, if all that is worth
    something ends. float32 cannot tell values apart by less than 1e-7 of their size: a tolerance below that stops at
    `max_iterations`, unless V stands still before.

    Args:
        mdp: the process.
        discount: gamma, 0 to 1.
        tolerance: largest error allowed in V.
        max_iterations: stop there in any case.

    Returns:
        V*, the best actions, how many backups, and the bound reached.
    """
    return _iterate(lambda value: bellman_optimality(mdp, value, discount), mdp, discount, tolerance, max_iterations)


def policy_iteration(mdp: MDP, discount: float, tolerance: float = 1e-4, max_iterations: int = 100) -> Solution:
    """Find V* by turns of exact evaluation and greedy improvement (Howard 1960; Sutton and Barto 2018, sec. 4.3).

    An action gives way only to one that is better by more than `tolerance`, so that ties and rounding cannot send it
    round in circles. It stops when none does: V is then within `tolerance / (1 - discount)` of V*, commonly exact.

    Args:
        mdp: the process.
        discount: gamma, 0 to below 1: on the way it meets policies that never end.
        tolerance: how much better an action has to be.
        max_iterations: stop there in any case.

    Returns:
        V*, the best actions, how many improvements, and the bound reached.
    """
    states, num_actions = jnp.arange(mdp.initial.size), mdp.reward.shape[1]

    def improve(carry: tuple) -> tuple:
        action, _, iterations, _ = carry
        value = policy_values(mdp, jax.nn.one_hot(action, num_actions), discount)
        q = action_values(mdp, value, discount)
        gain = jnp.max(q, axis=-1) - q[states, action]
        better = jnp.where(gain > tolerance, jnp.argmax(q, axis=-1), action)
        return better.astype(jnp.int32), value, iterations + 1, jnp.max(gain)

    def goes_on(carry: tuple) -> jax.Array:
        _, _, iterations, gain = carry
        return (gain > tolerance) & (iterations < max_iterations)

    value = jnp.zeros(states.size)
    start = jnp.argmax(action_values(mdp, value, discount), axis=-1).astype(jnp.int32)
    carry = (start, value, jnp.zeros((), jnp.int32), jnp.full((), jnp.inf))
    action, value, iterations, gain = jax.lax.while_loop(goes_on, improve, carry)
    return Solution(value, action, iterations, gain / (1.0 - discount))


def _iterate(
    backup: Callable[[jax.Array], jax.Array], mdp: MDP, discount: float, tolerance: float, max_iterations: int
) -> Solution:
    factor = discount / jnp.maximum(1.0 - discount, 1e-30)  # at discount 1 only standing still is near enough

    def goes_on(carry: tuple) -> jax.Array:
        _, iterations, change = carry
        return (factor * change > tolerance) & (iterations < max_iterations)

    def one(carry: tuple) -> tuple:
        value, iterations, _ = carry
        backed_up = backup(value)
        return backed_up, iterations + 1, jnp.max(jnp.abs(backed_up - value))

    carry = one((jnp.zeros_like(mdp.initial), jnp.zeros((), jnp.int32), jnp.zeros(())))
    value, iterations, change = jax.lax.while_loop(goes_on, one, carry)
    action = jnp.argmax(action_values(mdp, value, discount), axis=-1).astype(jnp.int32)
    return Solution(value, action, iterations, factor * change)
