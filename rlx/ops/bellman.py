"""Finite Markov decision processes as arrays: Bellman operators, exact values and gradients, targets of Q-learning.

Axes: S states, A actions, K outcomes of an action in a state. A policy is probabilities `[S, A]`.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlx.ops.td import td_target


class MDP(NamedTuple):
    """A finite Markov decision process: for each state and action K outcomes.

    Outcomes, in place of a tensor `[S, A, S]`, keep it small where few states can follow (Taxi: 3,000 rows for
    1,500,000), and let two outcomes lead to the same state with different rewards (a fall off the cliff from its
    edge). A dense tensor is the case K = S with `next_state = arange(S)`. Where fewer than K outcomes are possible,
    the others have probability 0.

    Attributes:
        probability: `[S, A, K]` of the outcome, summing to 1 over K.
        next_state: `[S, A, K]` int32.
        reward: `[S, A, K]`.
        terminated: `[S, A, K]` bool, whether the outcome ends the task: the next state's value does not count.
        initial: `[S]` probability that an episode begins there.
    """

    probability: jax.Array
    next_state: jax.Array
    reward: jax.Array
    terminated: jax.Array
    initial: jax.Array


def action_values(mdp: MDP, value: jax.Array, discount: float) -> jax.Array:
    """Value of each action, if what follows is worth `value` (Sutton and Barto 2018, eq. 4.6).

        Q(s, a) = sum_k p_k (r_k + discount * (1 - terminated_k) * V(s'_k))

    Args:
        mdp: the process.
        value: `[S]` V.
        discount: gamma, 0 to 1.

    Returns:
        `[S, A]`.
    """
    following = jnp.where(mdp.terminated, 0.0, value[mdp.next_state])
    return jnp.sum(mdp.probability * (mdp.reward + discount * following), axis=-1)


def bellman_expectation(mdp: MDP, policy: jax.Array, value: jax.Array, discount: float) -> jax.Array:
    """One backup under a policy (Sutton and Barto 2018, eq. 4.5): `(T_pi V)(s) = sum_a pi(a|s) Q(s, a)`.

    A contraction by `discount` in the maximum norm, whose fixed point is V_pi.

    Args:
        mdp: the process.
        policy: `[S, A]` pi(a|s).
        value: `[S]` V.
        discount: gamma, 0 to 1.

    Returns:
        `[S]`.
    """
    return jnp.sum(policy * action_values(mdp, value, discount), axis=-1)


def bellman_optimality(mdp: MDP, value: jax.Array, discount: float) -> jax.Array:
    """One backup under the best actions (Sutton and Barto 2018, eq. 4.10): `(T V)(s) = max_a Q(s, a)`.

    A contraction by `discount` in the maximum norm, whose fixed point is V*.

    Args:
        mdp: the process.
        value: `[S]` V.
        discount: gamma, 0 to 1.

    Returns:
        `[S]`.
    """
    return jnp.max(action_values(mdp, value, discount), axis=-1)


def transition_matrix(mdp: MDP, policy: jax.Array) -> jax.Array:
    """Probability of going on from s in s' under a policy; rows lack what terminates there.

        P_pi(s, s') = sum_a pi(a|s) sum_k p_k (1 - terminated_k) [s'_k = s']

    Args:
        mdp: the process.
        policy: `[S, A]` pi(a|s).

    Returns:
        `[S, S]`.
    """
    states = jnp.arange(policy.shape[0])[:, None, None]
    weight = policy[..., None] * jnp.where(mdp.terminated, 0.0, mdp.probability)
    return jnp.zeros((policy.shape[0],) * 2, weight.dtype).at[states, mdp.next_state].add(weight)


def policy_values(mdp: MDP, policy: jax.Array, discount: float) -> jax.Array:
    """Exact V_pi by one linear solve: `(I - discount * P_pi) V = r_pi` (Sutton and Barto 2018, sec. 4.1).

    Differentiable in everything. At discount 1 the policy has to reach an end from everywhere, or the matrix is
    singular.

    Args:
        mdp: the process.
        policy: `[S, A]` pi(a|s).
        discount: gamma, 0 to 1.

    Returns:
        `[S]`.
    """
    reward = jnp.sum(policy * jnp.sum(mdp.probability * mdp.reward, axis=-1), axis=-1)
    return jnp.linalg.solve(jnp.eye(reward.size) - discount * transition_matrix(mdp, policy), reward)


def occupancy(mdp: MDP, policy: jax.Array, discount: float) -> jax.Array:
    """Expected discounted visits to each state: `d(s) = sum_t discount^t Pr(s_t = s)`, exact by one linear solve.

    Not normalised: it sums to `1 / (1 - discount)` where nothing terminates. (Sutton et al. 2000, theorem 1)

    Args:
        mdp: the process.
        policy: `[S, A]` pi(a|s).
        discount: gamma, 0 to 1.

    Returns:
        `[S]`.
    """
    matrix = jnp.eye(policy.shape[0]) - discount * transition_matrix(mdp, policy)
    return jnp.linalg.solve(matrix.T, mdp.initial)


def expected_return(mdp: MDP, policy: jax.Array, discount: float) -> jax.Array:
    """Exact expected discounted return of an episode: `J = sum_s initial(s) V_pi(s)`.

    With `policy = softmax(logits)` its gradient by `jax.grad` is the policy gradient, through the linear solve.

    Args:
        mdp: the process.
        policy: `[S, A]` pi(a|s).
        discount: gamma, 0 to 1.

    Returns:
        A scalar.
    """
    return mdp.initial @ policy_values(mdp, policy, discount)


def policy_gradient(mdp: MDP, logits: jax.Array, discount: float) -> jax.Array:
    """Exact gradient of the expected return in the logits of a softmax policy, by the theorem written out.

        dJ / dtheta = sum_s d(s) sum_a pi(a|s) A(s, a) dlog pi(a|s) / dtheta      (Sutton et al. 2000, theorem 1)

    For a table of logits the sum is `d(s) pi(a|s) A(s, a)`, as A has mean 0 under the policy. Without derivatives:
    compare `jax.grad` of `expected_return`.

    Args:
        mdp: the process.
        logits: `[S, A]` theta, with pi = softmax(theta).
        discount: gamma, 0 to 1.

    Returns:
        `[S, A]`.
    """
    policy = jax.nn.softmax(logits)
    value = policy_values(mdp, policy, discount)
    advantage = action_values(mdp, value, discount) - value[:, None]
    return occupancy(mdp, policy, discount)[:, None] * policy * advantage


def q_learning_target(
    reward: jax.Array,
    terminated: jax.Array,
    next_q: jax.Array,
    next_policy: jax.Array,
    next_action: jax.Array,
    discount: float,
) -> jax.Array:
    """What Q(s, a) should be if the best action follows (Watkins 1989; Sutton and Barto 2018, eq. 6.8).

        target = r + discount * (1 - terminated) * max_a Q(s', a)

    It asks neither what the policy would do in s' nor what it did: whoever acts, it is the best policy's value that is
    learned (off-policy). All targets take the same arguments, so that one algorithm takes any of them.

    Args:
        reward: `[...]` r.
        terminated: `[...]` bool, whether s' ends the task.
        next_q: `[..., A]` Q(s', .) of the true successor.
        next_policy: `[..., A]` pi(.|s') of the policy that acts; not looked at.
        next_action: `[...]` int, what it drew in s'; not looked at.
        discount: gamma, 0 to 1.

    Returns:
        `[...]`, with gradients stopped.
    """
    return td_target(reward, terminated, jnp.max(next_q, axis=-1), discount)


def sarsa_target(
    reward: jax.Array,
    terminated: jax.Array,
    next_q: jax.Array,
    next_policy: jax.Array,
    next_action: jax.Array,
    discount: float,
) -> jax.Array:
    """What Q(s, a) should be if the action that was really drawn follows (Sutton and Barto 2018, eq. 6.7).

        target = r + discount * (1 - terminated) * Q(s', a')

    It has no max because it asks for the value of the policy that acts, exploration and its accidents included; a' is
    one draw from that policy.

    Args:
        reward: `[...]` r.
        terminated: `[...]` bool, whether s' ends the task.
        next_q: `[..., A]` Q(s', .) of the true successor.
        next_policy: `[..., A]` pi(.|s'); not looked at.
        next_action: `[...]` int a', which the policy drew in s' (and takes there, unless the episode was cut off).
        discount: gamma, 0 to 1.

    Returns:
        `[...]`, with gradients stopped.
    """
    chosen = jnp.take_along_axis(next_q, next_action[..., None], axis=-1)[..., 0]
    return td_target(reward, terminated, chosen, discount)


def expected_sarsa_target(
    reward: jax.Array,
    terminated: jax.Array,
    next_q: jax.Array,
    next_policy: jax.Array,
    next_action: jax.Array,
    discount: float,
) -> jax.Array:
    """SARSA's target averaged over a' (van Seijen et al. 2009, eq. 5; Sutton and Barto 2018, eq. 6.9): less variance.

        target = r + discount * (1 - terminated) * sum_a pi(a|s') Q(s', a)

    Under a greedy policy it is Q-learning's.

    Args:
        reward: `[...]` r.
        terminated: `[...]` bool, whether s' ends the task.
        next_q: `[..., A]` Q(s', .) of the true successor.
        next_policy: `[..., A]` pi(.|s') of the policy that acts.
        next_action: `[...]` int; not looked at.
        discount: gamma, 0 to 1.

    Returns:
        `[...]`, with gradients stopped.
    """
    return td_target(reward, terminated, jnp.sum(next_policy * next_q, axis=-1), discount)
