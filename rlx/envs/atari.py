"""Atari 2600 games with the usual wrappers, from ale-py, which carries the ROMs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium as gym

from rlx.envs.host import Gymnasium, unknown


@dataclass(frozen=True)
class _Atari:
    """What makes one game, and can be sent to another process."""

    env_id: str
    terminal_on_life_loss: bool

    @property
    def __name__(self) -> str:
        return self.env_id

    def __call__(self, **kwargs: Any) -> gym.Env:
        env = gym.make(self.env_id, frameskip=1, disable_env_checker=True, **kwargs)
        env = gym.wrappers.AtariPreprocessing(env, terminal_on_life_loss=self.terminal_on_life_loss)
        return gym.wrappers.FrameStackObservation(env, 4)


def atari(env_id: str, processes: bool = False, terminal_on_life_loss: bool = False, **kwargs: Any) -> Gymnasium:
    """Name a game for rlx, `rlx.envs.atari("ALE/Breakout-v5")`, as Machado et al. 2018 (arXiv 1709.06009) play it.

    Up to 30 no-ops at first, every 4th frame (the maximum of two), 84 x 84 grey pixels, the last 4 of them: uint8
    `[4, 84, 84]`; an action is repeated with probability 1/4. Rewards are the game's: `DQNConfig.reward_clip` clips
    what DQN learns from, and evaluation shows the score.

    Args:
        env_id: `ALE/...-v5`.
        processes: run each environment in a process of its own.
        terminal_on_life_loss: end the episode with a life, as Mnih et al. 2015 did while training.
        **kwargs: for `gymnasium.make`, such as `repeat_action_probability=0.0`.

    Raises:
        ImportError: ale-py or opencv is missing: `pip install 'rlx[atari]'`.
        ValueError: an id that ale-py does not know; the nearest ones are named.
    """
    try:
        import ale_py
        import cv2  # noqa: F401  AtariPreprocessing scales by it
    except ImportError as error:
        raise ImportError(f"{env_id} needs {error.name}: pip install 'rlx[atari]'") from error
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # no banner
    gym.register_envs(ale_py)
    if env_id not in gym.registry:
        raise ValueError(unknown("environment", env_id, [name for name in gym.registry if name.startswith("ALE/")]))
    return Gymnasium(_Atari(env_id, terminal_on_life_loss), kwargs, processes)
