"""JAX environments as gymnasium's: its checker, its autoreset modes, its wrappers."""

import re
import warnings
from dataclasses import dataclass, field
from typing import NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import RecordEpisodeStatistics, TimeLimit
from gymnasium.wrappers.vector import RecordEpisodeStatistics as VectorRecordEpisodeStatistics

from rlx.envs import CartPole, Pendulum, probes, to_gymnasium
from rlx.types import Step

MODES = pytest.mark.parametrize("mode", list(AutoresetMode), ids=lambda mode: mode.name)


class CountState(NamedTuple):
    time: jax.Array  # int32
    key: jax.Array  # a typed key, as an environment may carry one


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Count:
    """A user's environment without chance: it counts; action 2 ends it, `limit` steps cut it short."""

    limit: int = field(default=4, metadata={"static": True})
    render_fps = 7

    @property
    def observation_space(self):
        image = spaces.Box(0, 255, (2, 3, 1), np.uint8)
        return spaces.Dict({"image": image, "time": spaces.Discrete(100), "half": spaces.Box(-9.0, 9.0, (1,))})

    @property
    def action_space(self):
        return spaces.Discrete(3)

    def reset(self, key):
        state = CountState(jnp.int32(0), key)
        return state, self.observe(state)

    def step(self, key, state, action):
        state = CountState(state.time + 1, key)
        info = {"action": action, "pair": jnp.stack([state.time, 2 * state.time])}
        return Step(state, self.observe(state), 0.5 * state.time, action == 2, state.time >= self.limit, info)

    def observe(self, state):
        return {
            "image": jnp.full((2, 3, 1), state.time, jnp.uint8),
            "time": state.time,
            "half": state.time[None] / 2,
        }

    def render(self, state):
        return jnp.full((20, 30, 3), 10 * state.time, jnp.uint8)


def assert_same(ours, theirs):
    """Same structure, types, dtypes and numbers."""
    assert type(ours) is type(theirs), (ours, theirs)
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert_same(ours[name], theirs[name])
    elif isinstance(ours, tuple) or (isinstance(ours, np.ndarray) and ours.dtype == object):
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other)
    elif isinstance(ours, np.ndarray):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    else:
        assert ours == theirs


# --- one environment ---


@pytest.mark.parametrize(
    "env", [CartPole(), Pendulum(), probes.DelayedReward(), probes.Clock(continuous=True), Count()], ids=repr
)
def test_check_env(env):
    """Every check of gymnasium's, and no warning but those about the spaces, which are gymnasium's own."""
    with warnings.catch_warnings():
        for text in ("Box observation space m", "symmetric and normalized", "not having a spec"):
            warnings.filterwarnings("ignore", f".*{text}")
        check_env(to_gymnasium(env))


def test_registered_environment_passes_in_every_render_mode(monkeypatch):
    pytest.importorskip("pygame", reason="pygame is missing: pip install 'rlx[classic]'")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    gymnasium.register("rlx-test/CartPole-v1", entry_point=lambda **kwargs: to_gymnasium(CartPole(), **kwargs))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*Box observation space m")
            warnings.filterwarnings("ignore", ".*pkg_resources.*")
            check_env(gymnasium.make("rlx-test/CartPole-v1", render_mode="rgb_array").unwrapped)
    finally:
        del gymnasium.registry["rlx-test/CartPole-v1"]


def test_outputs_are_plain_and_the_callers_own():
    env = to_gymnasium(Count())
    observation, info = env.reset(seed=0)
    assert info == {}
    assert observation["time"] == 0
    assert isinstance(observation["time"], np.int64)
    observation, reward, terminated, truncated, info = env.step(np.int32(1))
    assert (type(reward), type(terminated), type(truncated)) == (float, bool, bool)
    assert (reward, terminated, truncated) == (0.5, False, False)
    assert observation["image"].dtype == np.uint8
    assert observation["half"].dtype == np.float32
    assert info["action"] == 1
    np.testing.assert_array_equal(info["pair"], [1, 2])
    observation["image"][:] = 9  # no view of a device's buffer
    assert env.step(0)[0]["image"].max() == 2
    assert env.step(2)[2:4] == (True, False)
    env.reset()
    assert [env.step(0)[3] for _ in range(4)] == [False, False, False, True]


def test_it_is_the_environment():
    """The same numbers as stepping the JAX environment from the same state."""
    env, out = Pendulum(), to_gymnasium(Pendulum())
    out.reset(seed=3)
    state = out._last[0]
    for torque in (0.5, -2.0, 7.0):  # beyond the bounds: clipped by the environment alone
        step = env.step(jax.random.key(0), state, jnp.array([torque]))
        observation, reward, *_ = out.step(np.array([torque]))  # float64, cast
        np.testing.assert_allclose(observation, step.observation, rtol=1e-5)
        assert reward == pytest.approx(float(step.reward), rel=1e-5)
        state = step.state


@pytest.mark.parametrize("num_envs", [None, 3])
def test_seeds(num_envs):
    def starts(seed):
        env = to_gymnasium(CartPole(), num_envs)
        return np.stack([env.reset(seed=seed)[0], env.reset()[0], env.reset()[0]])

    np.testing.assert_array_equal(starts(1), starts(1))  # resets without a seed follow from the seeded one
    found = np.concatenate([starts(1), starts(2), starts(None)]).reshape(-1, 4)
    assert len(np.unique(found, axis=0)) == len(found)


@pytest.mark.parametrize(("env", "action"), [(CartPole(), 2), (CartPole(), 0.5), (Pendulum(), [0.0, 0.0])])
@pytest.mark.parametrize("num_envs", [None, 2])
def test_wrong_actions_are_named(env, action, num_envs):
    out = to_gymnasium(env, num_envs)
    with pytest.raises(gymnasium.error.ResetNeeded):
        out.step(action)
    out.reset(seed=0)
    with pytest.raises(ValueError, match="is not in"):
        out.step(action if num_envs is None else [action] * num_envs)


def test_record_episode_statistics_and_time_limit():
    env = RecordEpisodeStatistics(TimeLimit(to_gymnasium(Count(limit=9)), 3))
    env.reset(seed=0)
    for _ in range(3):
        _, _, terminated, truncated, info = env.step(0)
    assert (terminated, truncated) == (False, True)
    assert (info["episode"]["r"], info["episode"]["l"]) == (0.5 + 1 + 1.5, 3)


# --- vector environments ---


@MODES
def test_modes_equal_a_sync_vector_env(mode):
    """The same environment under gymnasium's own SyncVectorEnv, infos too: equal at every step."""
    theirs = SyncVectorEnv([lambda: to_gymnasium(Count())] * 3, autoreset_mode=mode)
    ours = to_gymnasium(Count(), 3, autoreset_mode=mode)
    assert ours.metadata["autoreset_mode"] == mode
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    assert_same(ours.reset(seed=0), theirs.reset(seed=0))
    done, ends = np.zeros(3, bool), 0
    for actions in np.random.default_rng(0).choice(3, (60, 3), p=[0.5, 0.4, 0.1]):
        if mode == AutoresetMode.DISABLED and done.any():
            with pytest.raises(AssertionError, match="reset them"):  # as theirs, which steps some before it finds out
                ours.step(actions)
            assert_same(ours.reset(options={"reset_mask": done}), theirs.reset(options={"reset_mask": done}))
        out = ours.step(actions)
        assert_same(out, theirs.step(actions))
        done = out[2] | out[3]
        ends += done.sum()
    assert ends > 20
    assert ours._step._cache_size() == 1  # one program however many begin anew
    assert ours._reset._cache_size() <= 2  # the first reset and those with a mask


@MODES
def test_modes_beside_gymnasiums_cartpole(mode):
    """Gymnasium's CartPoles, each step from its state: rows that go on are equal, those that begin anew are starts."""
    theirs = SyncVectorEnv([lambda: gymnasium.make("CartPole-v1", max_episode_steps=15)] * 8, autoreset_mode=mode)
    ours = to_gymnasium(CartPole(max_steps=15), 8, autoreset_mode=mode)
    for envs in (ours, theirs):
        envs.reset(seed=0)
    done = np.zeros(8, bool)
    for actions in np.random.default_rng(0).integers(2, size=(80, 8)):
        if mode == AutoresetMode.DISABLED and done.any():
            for envs in (ours, theirs):
                envs.reset(options={"reset_mask": done})
            done[:] = False
        raw = np.stack([env.unwrapped.state for env in theirs.envs]).T
        time = jnp.array([env.get_wrapper_attr("_elapsed_steps") for env in theirs.envs])
        state = ours._batch.state
        ours._batch = ours._batch._replace(state=type(state)(*jnp.asarray(raw, jnp.float32), time))
        observation, reward, terminated, truncated, info = ours.step(actions)
        expected = theirs.step(actions)
        ended = expected[2] | expected[3]
        begun = {AutoresetMode.NEXT_STEP: done, AutoresetMode.SAME_STEP: ended}.get(mode, np.zeros(8, bool))
        np.testing.assert_allclose(observation[~begun], expected[0][~begun], atol=1e-5)
        assert np.all(np.abs(observation[begun]) <= 0.05)
        np.testing.assert_array_equal(reward, expected[1])
        np.testing.assert_array_equal(terminated, expected[2])
        np.testing.assert_array_equal(truncated, expected[3])
        assert ("final_obs" in info) == (mode == AutoresetMode.SAME_STEP and ended.any())
        for index in np.flatnonzero(ended if "final_obs" in info else []):
            np.testing.assert_allclose(info["final_obs"][index], expected[4]["final_obs"][index], atol=1e-5)
        done = ended


@MODES
def test_vector_record_episode_statistics(mode):
    envs = VectorRecordEpisodeStatistics(to_gymnasium(Count(limit=3), 2, autoreset_mode=mode))
    envs.reset(seed=0)
    lengths, returns = [], []
    for step in range(30):
        _, _, terminated, truncated, info = envs.step(np.array([0, 2 * (step % 2)]))
        done = terminated | truncated
        if "episode" in info:
            lengths += info["episode"]["l"][info["_episode"]].tolist()
            returns += info["episode"]["r"][info["_episode"]].tolist()
        if mode == AutoresetMode.DISABLED and done.any():
            envs.reset(options={"reset_mask": done})
    assert set(lengths) >= {2, 3}
    assert returns == [sum(0.5 * k for k in range(1, length + 1)) for length in lengths]


def test_every_reset_is_a_new_random_start():
    envs = to_gymnasium(CartPole(max_steps=2), 4, autoreset_mode=AutoresetMode.SAME_STEP)
    starts = [envs.reset(seed=0)[0]]
    starts += [envs.step(np.zeros(4, int))[0] for _ in range(10)][1::2]
    starts = np.concatenate(starts)
    assert np.abs(starts).max() <= 0.05
    assert len(np.unique(starts, axis=0)) == len(starts) == 24


def test_wrong_masks_are_named():
    envs = to_gymnasium(Count(), 2, autoreset_mode=AutoresetMode.DISABLED)
    good = np.array([True, False])
    with pytest.raises(gymnasium.error.ResetNeeded):
        envs.reset(options={"reset_mask": good})
    envs.reset(seed=0)
    for mask, kind in [([True, False], TypeError), (good.astype(int), TypeError), (good[:1], ValueError)]:
        with pytest.raises(kind, match="reset_mask"):
            envs.reset(options={"reset_mask": mask})
    with pytest.raises(ValueError, match="True somewhere"):
        envs.reset(options={"reset_mask": np.zeros(2, bool)})
    with pytest.raises(ValueError, match=re.escape("num_envs=0 must be 1 or more")):
        to_gymnasium(Count(), 0)
