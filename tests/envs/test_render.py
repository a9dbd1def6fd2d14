"""Pictures: gymnasium's look, an environment's own, its image; videos through gymnasium's wrapper."""

import subprocess
import sys

import gymnasium
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import RecordVideo
from test_to_gymnasium import Count

from rlx.envs import CartPole, Pendulum, probes, to_gymnasium
from rlx.envs.render import LOOKS, draw_image, find_renderer
from rlx.types import Step


@pytest.fixture
def pygame(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    return pytest.importorskip("pygame", reason="pygame is missing: pip install 'rlx[classic]'")


@pytest.mark.parametrize(("env", "name"), [(CartPole(), "CartPole-v1"), (Pendulum(), "Pendulum-v1")])
def test_classic_control_has_gymnasiums_look(env, name, pygame):
    """The same picture as gymnasium's own environment in the same state, after the same action."""
    ours, theirs = to_gymnasium(env, render_mode="rgb_array"), gymnasium.make(name, render_mode="rgb_array")
    assert ours.metadata["render_fps"] == theirs.metadata["render_fps"]
    ours.reset(seed=0)
    theirs.reset(seed=0)
    frames = []
    for _ in range(8):
        theirs.unwrapped.state = np.array(ours._last[0], np.float64)[: len(theirs.unwrapped.state)]
        np.testing.assert_array_equal(ours.render(), theirs.render())
        frames.append(ours.render())
        action = theirs.action_space.high if name == "Pendulum-v1" else 1
        ours.step(action)
        theirs.step(action)
    assert any(np.any(frame != frames[0]) for frame in frames)


def test_the_picture_shows_the_constants(pygame):
    long, short = (to_gymnasium(CartPole(length=length), render_mode="rgb_array") for length in (0.9, 0.3))
    for env in (long, short):
        env.reset(seed=0)
    brown = [np.all(env.render() == (202, 152, 101), axis=-1).sum() for env in (long, short)]
    assert brown[0] > 2.5 * brown[1]


def test_looks_name_what_gymnasium_has():
    for look in LOOKS.values():
        env = gymnasium.make(look.env_id).unwrapped
        env.reset()
        assert len(env.state) == look.fields
        assert all(hasattr(env, name) for name in look.constants.values())
        assert look.action is None or hasattr(env, look.action)


def test_human_mode_shows_every_step(pygame):
    env = to_gymnasium(CartPole(), render_mode="human")
    env.reset(seed=0)
    env.step(1)
    shown = pygame.surfarray.array3d(pygame.display.get_surface()).swapaxes(0, 1)
    beside = to_gymnasium(CartPole(), render_mode="rgb_array")
    beside.reset(seed=0)
    beside.step(1)
    np.testing.assert_array_equal(shown, beside.render())
    env.close()
    env.close()
    beside.close()


def test_a_users_own_picture():
    env = to_gymnasium(Count(), render_mode="rgb_array")
    assert env.metadata == {"render_modes": ["human", "rgb_array"], "render_fps": 7}
    env.reset()
    env.step(0)
    np.testing.assert_array_equal(env.render(), np.full((20, 30, 3), 10))
    envs = to_gymnasium(Count(), 2, render_mode="rgb_array")
    envs.reset()
    envs.step(np.array([2, 0]))
    assert [frame[0, 0, 0] for frame in envs.render()] == [10, 10]

    class Wrong(Count):
        def render(self, state):
            return jnp.zeros((4, 4))

    env = to_gymnasium(Wrong(), render_mode="rgb_array")
    env.reset()
    with pytest.raises(ValueError, match=r"Wrong.render gave float32 \[4, 4\]"):
        env.render()


class Picture:
    """Observes an image of 4 channels, one of which is lit."""

    observation_space = spaces.Box(0, 255, (10, 10, 4), np.uint8)
    action_space = spaces.Discrete(4)

    def reset(self, key):
        return jnp.int32(0), self.observe(0)

    def step(self, key, state, action):
        return Step(action, self.observe(action), 0.0, jnp.bool_(False), jnp.bool_(False), {})

    def observe(self, state):
        return jnp.zeros((10, 10, 4), jnp.uint8).at[0, 1, state].set(255)


def test_image_observations_draw_themselves():
    env = to_gymnasium(Picture(), render_mode="rgb_array")
    env.reset()
    colours = []
    for action in range(4):
        env.step(action)
        frame = env.render()
        assert frame.shape == (320, 320, 3)
        colours.append(frame[5, 40].copy())
        frame[:32, 32:64] -= colours[-1]
        assert not frame.any()
    assert len(np.unique(colours, axis=0)) == 4
    assert np.min(np.max(colours, axis=1)) > 190
    image = np.arange(2 * 2 * 3, dtype=np.uint8).reshape(2, 2, 3)
    np.testing.assert_array_equal(draw_image(image)[::160, ::160], image)
    np.testing.assert_array_equal(draw_image(image[..., :1])[::160, ::160], image[..., :1].repeat(3, -1))


@pytest.mark.parametrize("num_envs", [None, 2])
def test_what_cannot_be_drawn_is_said(num_envs):
    assert find_renderer(probes.Clock()) is None
    assert to_gymnasium(probes.Clock(), num_envs).metadata["render_modes"] == []
    with pytest.raises(ValueError, match=r"Clock cannot be drawn: give it a method render\(state\)"):
        to_gymnasium(probes.Clock(), num_envs, render_mode="rgb_array")
    with pytest.raises(ValueError, match=r"unknown render_mode 'ansi': there (are|is) .*rgb_array"):
        to_gymnasium(Count(), num_envs, render_mode="ansi")


def test_missing_pygame_is_named():
    code = (
        "import sys; sys.modules['pygame'] = None\nfrom rlx.envs import CartPole, to_gymnasium\n"
        "to_gymnasium(CartPole())\ntry:\n    to_gymnasium(CartPole(), render_mode='rgb_array')\n"
        "except ImportError as error:\n    print(error)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'rlx[classic]'" in out.stdout


def test_record_video_writes_a_playable_file(tmp_path, pygame):
    moviepy = pytest.importorskip("moviepy", reason="moviepy is missing: pip install 'moviepy>=2'")
    env = RecordVideo(to_gymnasium(CartPole(max_steps=10), render_mode="rgb_array"), str(tmp_path / "clips"))
    env.reset(seed=0)
    ended = False
    while not ended:
        _, _, terminated, truncated, _ = env.step(0)
        ended = terminated or truncated
    env.close()
    (file,) = (tmp_path / "clips").glob("*.mp4")
    with moviepy.VideoFileClip(str(file)) as clip:
        assert clip.fps == 50
        assert clip.size == [600, 400]
        frame = clip.get_frame(0)
    assert frame.mean() > 200  # a white picture
    assert frame.min() < 40  # with a black cart
