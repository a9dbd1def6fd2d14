"""JAX environments, probes with known answers, and the bridges to and from gymnasium, gymnax and brax."""

from __future__ import annotations

from functools import partial

import gymnasium as _gymnasium

from rlx.envs.acrobot import Acrobot
from rlx.envs.action_mask import ActionMask
from rlx.envs.adapters import from_brax, from_gymnax
from rlx.envs.atari import atari
from rlx.envs.breakout import Breakout
from rlx.envs.bridge import HostEnvError
from rlx.envs.cartpole import CartPole
from rlx.envs.catch import Catch
from rlx.envs.exploration import Bandit, deep_sea
from rlx.envs.host import Gymnasium, gymnasium, gymnasium_vector, unknown
from rlx.envs.mountain_car import MountainCar
from rlx.envs.mountain_car_continuous import MountainCarContinuous
from rlx.envs.pendulum import Pendulum
from rlx.envs.tabular import TabularEnv
from rlx.envs.to_gymnasium import to_gymnasium
from rlx.envs.toy_text import LAKES, cliff_walking, frozen_lake, taxi
from rlx.envs.vectorize import action_to_space, vectorize
from rlx.types import Env

JAX_ENVS = {
    "CartPole-v1": CartPole,
    "Pendulum-v1": Pendulum,
    "Acrobot-v1": Acrobot,
    "MountainCar-v0": MountainCar,
    "MountainCarContinuous-v0": MountainCarContinuous,
    "Catch-bsuite": Catch,
    "Breakout-MinAtar": Breakout,
    "CliffWalking-v1": cliff_walking,
    "CliffWalkingSlippery-v1": partial(cliff_walking, slippery=True),
    "FrozenLake-v1": frozen_lake,
    "FrozenLake8x8-v1": partial(frozen_lake, LAKES[8], max_steps=200),
    "Taxi-v4": taxi,
    "DeepSea-bsuite": deep_sea,
}


def make(env_id: str) -> Env | Gymnasium:
    """Make an environment by its gymnasium id: the JAX one where there is one, else a recipe for gymnasium's.

    Atari games, `ALE/...`, have the usual wrappers: see `atari`.

    Raises:
        ValueError: an id that nobody knows; the nearest ones are named.
    """
    if env_id in JAX_ENVS:
        return JAX_ENVS[env_id]()
    if env_id.startswith("ALE/"):
        return atari(env_id)
    if ":" not in env_id and env_id not in _gymnasium.registry:
        raise ValueError(unknown("environment", env_id, {*JAX_ENVS, *_gymnasium.registry}))
    return gymnasium(env_id)


__all__ = [
    "JAX_ENVS",
    "LAKES",
    "Acrobot",
    "ActionMask",
    "Bandit",
    "Breakout",
    "CartPole",
    "Catch",
    "Gymnasium",
    "HostEnvError",
    "MountainCar",
    "MountainCarContinuous",
    "Pendulum",
    "TabularEnv",
    "action_to_space",
    "atari",
    "cliff_walking",
    "deep_sea",
    "from_brax",
    "from_gymnax",
    "frozen_lake",
    "gymnasium",
    "gymnasium_vector",
    "make",
    "taxi",
    "to_gymnasium",
    "vectorize",
]
