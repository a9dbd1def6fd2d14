"""gymnasium in: any spaces, all autoreset modes, processes, and environments that misbehave."""

import gymnasium as gym
import jax
import numpy as np
import optax
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import rlx
from rlx.envs.layout import Layout

KEY = jax.random.key(0)
B, LIMIT = 3, 4
SPACE = spaces.Dict(
    {
        "wide": spaces.Box(-np.inf, np.inf, (2,), np.float64),
        "pixels": spaces.Box(0, 255, (2, 3, 1), np.uint8),
        "pair": spaces.Tuple([spaces.Discrete(9, start=3), spaces.MultiDiscrete([4, 5], start=[1, 0])]),
    }
)


class Diary(gym.Env):
    """Every observation tells the episode (by a random number), the step and the last action; LIMIT steps an episode,
    cut off at the end of every other one. `fault` spoils the step of that number, counted over all episodes."""

    observation_space = SPACE
    action_space = spaces.MultiDiscrete([3, 2], start=[5, 0])

    def __init__(self, fault=None, at=6, only=0):
        self.fault, self.at, self.steps, self.episodes, self.only = fault, at, 0, 0, only

    def observe(self, action):
        self.wide = np.array([self.name, self.time + 0.5])
        pixels = np.full((2, 3, 1), self.time, np.uint8)
        return {"pixels": pixels, "pair": (3 + self.time, np.array([1, action])), "wide": self.wide}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.name, self.time = self.np_random.random(), 0
        self.episodes += 1
        return self.observe(0), {}

    def step(self, action):
        assert self.action_space.contains(np.asarray(action)), action
        self.time += 1
        self.steps += 1
        observation, reward = self.observe(action[0] - 5), float(self.time)
        done, even = self.time == LIMIT, self.episodes % 2 == 0
        if self.fault and self.steps == self.at and self.name_tag == self.only:
            match self.fault:
                case "raises":
                    raise RuntimeError("the motor is too hot")
                case "nan":
                    observation["wide"][0] = np.nan
                case "nan reward":
                    reward = float("nan")
                case "shape":
                    observation["wide"] = np.zeros(5)
                case "dtype":
                    observation["pixels"] = np.full((2, 3, 1), 0.5)
                case "nesting":
                    del observation["pair"]
                case "list reward":
                    reward = [1.0, 2.0]
        return observation, reward, done and even, done and not even, {}


def faulty(fault, only):
    """Makes environments of which the one numbered `only` misbehaves."""
    numbers = iter(range(99))

    def make():
        env = Diary(fault, only=only)
        env.name_tag = next(numbers)
        return env

    make.__name__ = "Diary"
    return make


def vector(mode):
    return lambda num_envs: SyncVectorEnv([Diary] * num_envs, autoreset_mode=mode)


RECIPES = {
    "one by one": rlx.envs.gymnasium(Diary),
    "processes": rlx.envs.gymnasium(Diary, processes=True),
    **{mode.name: rlx.envs.gymnasium_vector(vector(mode)) for mode in AutoresetMode},
    "async next step": rlx.envs.gymnasium_vector(
        lambda num_envs: gym.vector.AsyncVectorEnv(
            [Diary] * num_envs, autoreset_mode=AutoresetMode.NEXT_STEP, context="forkserver"
        )
    ),
}


def collect(recipe, steps=3 * LIMIT):
    env = rlx.vectorize(recipe, B)
    actions = np.array([[0, 0], [1, 1], [2, 0]])
    return rlx.rollout(env, lambda actor, *_: actor, actions, rlx.start_rollout(env, KEY), KEY, steps)


@pytest.fixture(scope="module")
def expected():
    return collect(RECIPES["one by one"])


@pytest.mark.parametrize("name", RECIPES)
def test_every_way_and_mode_gives_the_same_rows_and_no_ghosts(name, expected):
    jax.tree.map(np.testing.assert_array_equal, collect(RECIPES[name]), expected)


def test_rows_are_true(expected):
    state, rows, metrics = expected
    seen, after = rows.observation, rows.next_observation
    assert {str(x.dtype) for x in jax.tree.leaves(seen["wide"])} == {"float32"}
    assert seen["pixels"].dtype == np.uint8
    assert seen["pair"][0].dtype == np.int32
    done = rows.terminated | rows.truncated
    time = np.tile(np.arange(LIMIT), 3)[:, None] + np.zeros(B)
    np.testing.assert_array_equal(seen["wide"][..., 1], time + 0.5)
    np.testing.assert_array_equal(after["wide"][..., 1], time + 1.5)  # final observations too
    np.testing.assert_array_equal(after["wide"][..., 0], seen["wide"][..., 0])  # of the same episode
    np.testing.assert_array_equal(after["pair"][1][..., 1], rows.action[..., 0])  # 0, 1, 2: shifted to 5, 6, 7 and back
    np.testing.assert_array_equal(rows.reward, time + 1)
    np.testing.assert_array_equal(done, time == LIMIT - 1)
    np.testing.assert_array_equal(rows.terminated[LIMIT - 1 :: LIMIT].T, [[False, True, False]] * B)
    assert len(np.unique(seen["wide"][..., 0])) == 3 * B  # a new random start every time
    assert (metrics["episodes"], metrics["episode_length"], metrics["episode_return"]) == (3 * B, LIMIT, 10)
    np.testing.assert_array_equal(state.episode_length, 0)


FAULTS = {
    "raises": "RuntimeError: the motor is too hot",
    "nan": "NaN or infinity in its observation",
    "nan reward": "NaN or infinity in its reward",
    "shape": r"an observation of shape \(5,\), where its space says \(2,\)",
    "dtype": "an observation of type float64, where its space says uint8",
    "nesting": "an observation that is not nested as its space: KeyError",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_names_the_environment_and_the_step(fault):
    with pytest.raises(rlx.envs.HostEnvError, match=f"^Diary, environment 2, step 6: .*{FAULTS[fault]}"):
        collect(rlx.envs.gymnasium(faulty(fault, 2)))


def test_a_reward_that_is_no_number():
    with pytest.raises(rlx.envs.HostEnvError, match=r"^Diary, step 6: rewards that are not single numbers"):
        collect(rlx.envs.gymnasium(faulty("list reward", 2)))


def test_a_fault_in_a_reset_names_the_environment_too():
    class Late(Diary):
        """The last one's third episode begins with NaN."""

        def reset(self, *, seed=None, options=None):
            observation, info = super().reset(seed=seed)
            if self.name_tag == 2 and self.episodes == 3:
                observation["wide"][0] = np.nan
            return observation, info

    numbers = iter(range(99))

    def make():
        env = Late()
        env.name_tag = next(numbers)
        return env

    with pytest.raises(rlx.envs.HostEnvError, match=f"environment 2, step {2 * LIMIT}: NaN or infinity in its obs"):
        collect(rlx.envs.gymnasium(make))


@pytest.mark.filterwarnings("ignore:.*ERROR:")  # gymnasium's own words on it
@pytest.mark.parametrize("fault", ["raises", "shape"])
def test_a_fault_in_a_process_does_too(fault):
    class Lone(Diary):
        name_tag = 0

    recipe = rlx.envs.gymnasium(Lone, processes=True, fault=fault)
    with pytest.raises(rlx.envs.HostEnvError, match=f"^Lone, environment [012], step 6: .*{FAULTS[fault]}"):
        collect(recipe)


@pytest.mark.parametrize(
    "space",
    [spaces.Text(3), spaces.Graph(BOX := spaces.Box(0, 1), None), spaces.Sequence(BOX), spaces.OneOf([BOX, BOX])],
    ids=lambda space: type(space).__name__,
)
def test_other_spaces_are_refused_by_name(space):
    for nested in (space, spaces.Dict({"a": BOX, "b": space})):
        for refuse in (Layout, rlx.nets.network_inputs):
            with pytest.raises(ValueError, match=rf"{type(space).__name__}\(.* is not supported: use Box"):
                refuse(nested)


def test_a_vector_environment_that_spends_a_step_on_resets_is_refused():
    recipe = rlx.envs.gymnasium_vector("CartPole-v1", vectorization_mode="vector_entry_point")
    with pytest.raises(ValueError, match="NEXT_STEP CartPoleVectorEnv spends a step on each reset"):
        rlx.vectorize(recipe, B)


class Masked(gym.Env):
    """The only allowed action walks round."""

    observation_space, action_space = spaces.Discrete(4), spaces.Discrete(4)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = 0
        return 0, {"action_mask": np.arange(4) == 0}

    def step(self, action):
        assert action == self.place, "an action that was not allowed"
        self.place += 1
        over = self.place == 4
        return min(self.place, 3), 1.0, over, False, {"action_mask": np.arange(4) == self.place}  # at the end: none is


def test_an_action_mask_moves_into_the_observation_and_is_obeyed():
    env = rlx.envs.gymnasium(lambda: rlx.envs.ActionMask(Masked()))
    assert env.observation_space["action_mask"] == spaces.MultiBinary(4)
    algorithm = rlx.ppo(
        env, rlx.nets.actor_critic(env, (4,)), optax.sgd(0.1), rlx.PPOConfig(num_envs=2, num_steps=8, num_minibatches=1)
    )
    state, metrics = algorithm.step(algorithm.init(KEY))
    assert metrics["episodes"] == 4
    assert np.isfinite([*metrics.values()]).all()
    assert rlx.evaluate(algorithm, env, state, KEY, 3).episode_return.tolist() == [4, 4, 4]


def test_an_environment_without_a_mask_says_so():
    env = rlx.envs.gymnasium(lambda: rlx.envs.ActionMask(gym.make("CartPole-v1")))
    with pytest.raises(rlx.envs.HostEnvError, match=r"environment 0, step 0: .*has no action_mask in its info"):
        rlx.start_rollout(rlx.vectorize(env, 1), KEY)
