"""The step that all deep algorithms share: act for T steps, then learn.

Axes: T time, B environments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from rlx.core.rollout import rollout
from rlx.types import Algorithm, Key, Metrics, PyTree, Transition, TwoHalves, VectorEnv

Learn = Callable[[Any, Transition, Key], tuple[Any, Metrics]]


def act_and_learn(
    env: VectorEnv,
    init: Callable[[Key], Any],
    actor: Callable[[Any], PyTree],
    policy: Callable[[PyTree, Key | None, PyTree], jax.Array],
    learn: Learn,
    num_steps: int,
    keeps: bool = False,
) -> Algorithm:
    """Make the algorithm whose step is a rollout of T = `num_steps` and learning from it.

    Args:
        env: the environments.
        init: `(key) -> state` with at least the fields `key` and `rollout`.
        actor: from the state, what the policy needs.
        policy: `(that, key, observation) -> action`; with key None the greedy one.
        learn: `(state, raw transitions [T, B, ...], key) -> (state, metrics)`; it leaves `key` and `rollout` alone.
        num_steps: T.
        keeps: whether the state holds a replay. Then the step is not cut in two: a map over states would copy it.
    """

    def act(state: Any, key: Key | None, observation: PyTree) -> jax.Array:
        return policy(actor(state), key, observation)

    if env.host:
        learn = jax.jit(learn, donate_argnums=0)

    def collect(state: Any) -> tuple[Any, Transition, Key, Metrics]:
        key, rollout_key, learn_key = jax.random.split(state.key, 3)
        rollout_state, transitions, episodes = rollout(env, policy, actor(state), state.rollout, rollout_key, num_steps)
        return state._replace(key=key, rollout=rollout_state), transitions, learn_key, episodes

    def learn_from(state: Any, transitions: Transition, key: Key, episodes: Metrics) -> tuple[Any, Metrics]:
        state, metrics = learn(state, transitions, key)
        return state, metrics | episodes

    step = TwoHalves(collect, learn_from)
    rows = num_steps * env.num_envs  # to learn from at once; fewer are faster side by side
    cut = not keeps and not env.host and rows >= 100 and jax.default_backend() == "cpu"
    return Algorithm(init, step if cut else lambda state: step(state), act, env.host)
