"""JAX environments, probes with known answers, and the bridges to and from gymnasium, gymnax and brax."""

from __future__ import annotations

import gymnasium as _gymnasium

from rlx.envs.adapters import from_brax, from_gymnax
from rlx.envs.cartpole import CartPole
from rlx.envs.host import Gymnasium, gymnasium, unknown
from rlx.envs.pendulum import Pendulum
from rlx.envs.to_gymnasium import to_gymnasium
from rlx.envs.vectorize import action_to_space, vectorize
from rlx.types import Env

JAX_ENVS = {"CartPole-v1": CartPole, "Pendulum-v1": Pendulum}


def make(env_id: str) -> Env | Gymnasium:
    """Make an environment by its gymnasium id: the JAX one where there is one, else a recipe for gymnasium's.

    Raises:
        ValueError: an id that nobody knows; the nearest ones are named.
    """
    if env_id in JAX_ENVS:
        return JAX_ENVS[env_id]()
    if ":" not in env_id and env_id not in _gymnasium.registry:
        raise ValueError(unknown("environment", env_id, {*JAX_ENVS, *_gymnasium.registry}))
    return gymnasium(env_id)


__all__ = [
    "JAX_ENVS",
    "CartPole",
    "Gymnasium",
    "Pendulum",
    "action_to_space",
    "from_brax",
    "from_gymnax",
    "gymnasium",
    "make",
    "to_gymnasium",
    "vectorize",
]
