"""An action mask, moved from gymnasium's `info` into the observation."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class ActionMask(gym.Wrapper):
    """Make observations `{"observation", "action_mask"}`, with the mask that the environment keeps in `info`.

        rlx.envs.gymnasium(lambda: rlx.envs.ActionMask(gym.make("Taxi-v4")))

    The mask has one number an action, 1 where it is allowed; for MultiDiscrete the masks of its choices, one after the
    other. The library's networks make what is not allowed impossible.

    Raises:
        ValueError: an action space other than Discrete and MultiDiscrete; on a reset or a step, an `info` without
            "action_mask".
    """

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        match env.action_space:
            case spaces.Discrete(n=n):
                size = int(n)
            case spaces.MultiDiscrete(nvec=nvec):
                size = int(nvec.sum())
            case space:
                raise ValueError(f"an action mask needs a Discrete or MultiDiscrete action space, not {space}")
        self.observation_space = spaces.Dict(
            {"observation": env.observation_space, "action_mask": spaces.MultiBinary(size)}
        )

    def reset(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin an episode."""
        observation, info = self.env.reset(**kwargs)
        return self._with_mask(observation, info), info

    def step(self, action: Any) -> tuple[dict[str, Any], Any, bool, bool, dict[str, Any]]:
        """Step the environment."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._with_mask(observation, info), reward, terminated, truncated, info

    def _with_mask(self, observation: Any, info: dict[str, Any]) -> dict[str, Any]:
        if "action_mask" not in info:
            raise ValueError(f"{self.env} has no action_mask in its info")
        mask = info["action_mask"]
        mask = np.concatenate(mask) if isinstance(mask, tuple) else np.asarray(mask)
        return {"observation": observation, "action_mask": mask.astype(np.int8)}
