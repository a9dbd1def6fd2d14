"""Pictures of JAX environments: an environment's own, gymnasium's look where it has the same one, or its image.

Axes: H rows, W columns, C channels of an image observation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import gymnasium
import jax
import numpy as np

from rlx.types import Env, PyTree


@runtime_checkable
class Drawable(Protocol):
    """What an environment adds to `Env` to draw itself; it may have `render_fps` too, frames per second."""

    def render(self, state: PyTree) -> Any:
        """Draw one state: uint8 `[H, W, 3]`."""
        ...


class Renderer(NamedTuple):
    """How one environment is drawn.

    Attributes:
        frame: `(state, observation, action) -> [H, W, 3]` uint8; action None after a reset.
        fps: frames per second of real time.
        close: frees what it holds.
        needs_pygame: whether `frame` does.
    """

    frame: Callable[[PyTree, PyTree, Any], np.ndarray]
    fps: int
    close: Callable[[], None] = lambda: None
    needs_pygame: bool = False


class Look(NamedTuple):
    """Which gymnasium environment draws one of ours.

    Attributes:
        env_id: its id.
        fields: how many fields of our state, the first ones, are its state.
        constants: its attributes that set the picture, by the names of our constants.
        action: its attribute that shows the last action, if it has one.
    """

    env_id: str
    fields: int
    constants: Mapping[str, str] = {}
    action: str | None = None


LOOKS = {  # by class name within rlx.envs
    "CartPole": Look("CartPole-v1", 4, {"length": "length", "max_position": "x_threshold"}),
    "Pendulum": Look("Pendulum-v1", 2, action="last_u"),
    "Acrobot": Look("Acrobot-v1", 4),
    "MountainCar": Look("MountainCar-v0", 2),
    "MountainCarContinuous": Look("MountainCarContinuous-v0", 2),
}


def find_renderer(env: Env) -> Renderer | None:
    """Say how an environment is drawn, None where there is no way.

    Its own `render(state)` comes first, then gymnasium's look, then the image that it observes (uint8 `[H, W, C]`):
    enlarged, each channel in a colour of its own.
    """
    if isinstance(env, Drawable):
        draw = env.render
        fps = int(getattr(env, "render_fps", 30))
        return Renderer(lambda state, observation, action: _checked(draw(state), env), fps)
    for kind in type(env).__mro__:
        if kind.__module__.startswith("rlx.envs.") and kind.__name__ in LOOKS:
            return _gymnasium_look(env, LOOKS[kind.__name__])
    space = env.observation_space
    if isinstance(space, gymnasium.spaces.Box) and space.dtype == np.uint8 and len(space.shape) == 3:
        return Renderer(lambda state, observation, action: draw_image(np.asarray(observation)), 15)
    return None


def check_render_mode(env: Env, renderer: Renderer | None, modes: list[str], mode: str) -> None:
    """Raise unless an environment can be drawn in a mode.

    Args:
        env: the environment.
        renderer: what `find_renderer` gave for it.
        modes: those that there are.
        mode: the one asked for.

    Raises:
        ValueError: an environment that nothing draws, or an unknown mode.
        ImportError: pygame is missing.
    """
    name = type(env).__name__
    if mode not in modes:
        raise ValueError(
            f"unknown render_mode {mode!r}: there {'is' if len(modes) == 1 else 'are'} {' and '.join(modes)}"
        )
    if renderer is None:
        raise ValueError(f"{name} cannot be drawn: give it a method render(state) that returns a uint8 array [H, W, 3]")
    if renderer.needs_pygame or mode == "human":
        _pygame()


def draw_image(image: np.ndarray) -> np.ndarray:
    """Enlarge an image `[H, W, C]` uint8 to about 320 pixels, without blending; its channels become colours.

    One channel is grey, three are red, green and blue; more get a hue each, the brightest on top.
    """
    channels = image.shape[-1]
    if channels == 1:
        image = np.repeat(image, 3, axis=-1)
    elif channels != 3:
        hues = np.arange(channels)[:, None] / channels + np.array([0, 1 / 3, 2 / 3])
        colours = 0.55 + 0.45 * np.cos(2 * np.pi * hues)  # [C, 3]
        image = (image[..., None] * colours).max(axis=-2).astype(np.uint8)
    scale = max(1, round(160 / max(image.shape[:2]))) * 2  # even: video formats want that
    return image.repeat(scale, axis=0).repeat(scale, axis=1)


class Window:
    """A window that shows frames at their pace; opened by the first."""

    def __init__(self, fps: int) -> None:
        """Show `fps` frames a second."""
        self._fps = fps
        self._screen: Any = None
        self._clock: Any = None

    def show(self, frame: np.ndarray) -> None:
        """Show a frame `[H, W, 3]` uint8 and wait until the next is due."""
        pygame = _pygame()
        if self._screen is None:
            pygame.display.init()
            self._screen = pygame.display.set_mode(frame.shape[1::-1])
            self._clock = pygame.time.Clock()
        self._screen.blit(pygame.surfarray.make_surface(frame.swapaxes(0, 1)), (0, 0))
        pygame.event.pump()
        pygame.display.flip()
        self._clock.tick(self._fps)

    def close(self) -> None:
        """Close the window, if it is open."""
        if self._screen is not None:
            _pygame().display.quit()
            self._screen = None


def _gymnasium_look(env: Env, look: Look) -> Renderer:
    """Lend our numbers to gymnasium's environment and let it draw them."""
    theirs: Any = gymnasium.make(look.env_id, render_mode="rgb_array").unwrapped
    for ours, name in look.constants.items():
        setattr(theirs, name, float(getattr(env, ours)))

    def frame(state: PyTree, observation: PyTree, action: Any) -> np.ndarray:
        theirs.state = np.array(jax.device_get(state[: look.fields]), np.float64)
        if look.action:
            low, high = theirs.action_space.low, theirs.action_space.high
            setattr(theirs, look.action, None if action is None else np.clip(action, low, high).item())
        return theirs.render()

    return Renderer(frame, theirs.metadata["render_fps"], theirs.close, needs_pygame=True)


def _checked(frame: Any, env: Env) -> np.ndarray:
    frame = np.asarray(frame)
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        name, found = type(env).__name__, f"{frame.dtype} {list(frame.shape)}"
        raise ValueError(f"{name}.render gave {found}: it has to give a uint8 array [H, W, 3]")
    return frame


def _pygame() -> Any:
    try:
        import pygame
    except ImportError as error:
        raise ImportError("drawing this environment needs pygame: pip install 'rlx[classic]'") from error
    return pygame
