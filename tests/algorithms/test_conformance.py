"""What every algorithm is held to: one table of all of them, the same properties for each (design, section 6).

To add an algorithm: one line in CASES (and, for a new kind of algorithm, one function like `actor_critic` below).
"""

import dataclasses
import functools
import multiprocessing
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rlx
from rlx.core.checkpoint import load_checkpoint, save_checkpoint
from rlx.envs import probes


class Case(NamedTuple):
    """An algorithm on a tiny setting, and how to look inside it.

    `make(env, config) -> (algorithm, value)`, with `value(state, observation) -> V`; the fields of `probe` replace
    those of the config where it has to learn a probe, one of `probes`.
    """

    make: Callable
    env: Any
    config: Any
    probe: dict
    probes: list
    params: Callable = lambda state: state.learner.params
    max_steps: int = 150  # algorithm steps in which it learns a probe
    inert: tuple = ()  # fields that do nothing in this setting; a later case sets them otherwise, and they do


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Indexed:
    """A probe that shows the number of its cue, -1, 0 or 1, as 0, 1 or 2: for tables."""

    env: Any
    observation_space = gymnasium.spaces.Discrete(3)

    @property
    def action_space(self):
        return self.env.action_space

    def reset(self, key):
        state, observation = self.env.reset(key)
        return state, self.index(observation)

    def step(self, key, state, action):
        step = self.env.step(key, state, action)
        return step._replace(observation=self.index(step.observation))

    @staticmethod
    def index(observation):
        return jnp.int32(observation[..., 0]) + 1


def td_control(env, config, target=rlx.ops.q_learning_target):
    algorithm = rlx.td_control(env, target, config=config)
    return algorithm, lambda state, observation: state.q[observation].max(-1)


def actor_critic(make, env, config, learning_rate=2e-2):
    network = rlx.nets.actor_critic(env, (16,))
    optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(learning_rate, eps=1e-5))
    algorithm = make(env, network, optimizer, config)

    def value(state, observation):
        observation = rlx.core.normalize.normalize_observation(state.observation_moments, observation)
        return network.apply(state.learner.params, observation)[1]

    return algorithm, value


def trpo(env, config):
    actor, critic = rlx.nets.actor(env, (16,)), rlx.nets.critic(env, (16,))
    algorithm = rlx.trpo(env, actor, critic, optax.adam(2e-2), config)

    def value(state, observation):
        observation = rlx.core.normalize.normalize_observation(state.observation_moments, observation)
        return critic.apply(state.critic.params, observation)

    return algorithm, value


def dqn(env, config, **options):
    network = rlx.nets.q_network(env, (16,), **options)
    algorithm = rlx.dqn(env, network, optax.adam(2e-2), config)

    def value(state, observation):
        return rlx.ops.mean_values(network.apply(state.learner.params, observation)).max(axis=-1)

    return algorithm, value


def sac(env, config):
    actor, critic = rlx.nets.soft_actor(env, (16,)), rlx.nets.q_critic(env, (16,))
    algorithm = rlx.sac(env, actor, critic, optax.adam(1e-2), config)

    def value(state, observation):
        policy = actor.apply(state.actor.params, observation)
        judge = functools.partial(critic.apply, state.critic.params)
        if isinstance(policy, rlx.ops.TanhNormal):
            return jnp.min(judge(observation, policy.mode()), axis=0)
        return rlx.value_and_entropy(policy, judge, observation, KEY)[0]

    return algorithm, value


ppo = functools.partial(actor_critic, rlx.ppo)
a2c = functools.partial(actor_critic, rlx.a2c)
reinforce = functools.partial(actor_critic, rlx.reinforce)


def td3(env, config, critics=2):
    actor, critic = rlx.nets.deterministic_actor(env, (16,)), rlx.nets.q_critic(env, (16,), critics=critics)
    algorithm = rlx.td3(env, actor, critic, optax.adam(1e-2), config)

    def value(state, observation):
        action = actor.apply(state.actor.params, observation)
        return jnp.min(critic.apply(state.critic.params, observation, action), axis=0)

    return algorithm, value


TINY = {"num_envs": 2, "num_steps": 8, "num_epochs": 2, "num_minibatches": 2, "entropy_coef": 0.01, "clip": 0.05}
PROBE = {"num_envs": 8, "num_steps": 16, "num_epochs": 4, "discount": 0.9, "trace": 0.8, "clip": 0.2}
PROBE |= {"entropy_coef": 0.0}
RAW = {"normalize_reward": False}  # values in units of the reward
LOOSE = {"target_kl": 0.1, "value_clip": 1.0}
CONTINUOUS = [probes.ActionReward(True), probes.ObservationActionReward(True), probes.ContinuousTarget()]
DISCRETE = [
    probes.ConstantReward(),
    probes.ObservationReward(),
    probes.DelayedReward(),
    probes.ActionReward(),
    probes.ObservationActionReward(),
    probes.Clock(),
]
CARTPOLE, PENDULUM = rlx.envs.CartPole(max_steps=5), rlx.envs.Pendulum(max_steps=5)
SCALED = {"normalize_observation": True, "normalize_reward": True}
BOUNDED = {"target_kl": 0.05, "value_clip": 0.2}
REPLAY = {"num_envs": 2, "num_steps": 8, "batch_size": 8, "prefill": 8, "replay_size": 32}
DQN = REPLAY | {"gradient_steps": 4, "target_every": 3, "tau": 0.5, "epsilon_end": 0.5, "epsilon_steps": 16}
DQN |= {"n_step": 2, "huber": 0.1, "reward_clip": 0.5, "priority_exponent": 0.6}
DQN_PROBE = {"num_envs": 8, "num_steps": 4, "gradient_steps": 4, "batch_size": 64, "prefill": 128, "replay_size": 4096}
DQN_PROBE |= {"discount": 0.9, "huber": 1.0, "reward_clip": None, "tau": 1.0, "target_every": 8, "epsilon_steps": 1000}
SINGLE = {"num_envs": 2, "num_steps": 8, "entropy_coef": 0.01}  # one gradient step an update
SINGLE_PROBE = {"num_envs": 8, "num_steps": 16, "discount": 0.9, "trace": 0.8, "entropy_coef": 0.0}
MONTE_CARLO_PROBE = {name: value for name, value in SINGLE_PROBE.items() if name != "trace"}
REGION = {"num_envs": 2, "num_steps": 8, "critic_epochs": 2, "critic_minibatches": 2, "max_kl": 1.0}
REGION |= {"cg_iterations": 3, "cg_tolerance": 0.18, "line_search_shrink": 0.5}  # each of them binds
REGION_PROBE = {"num_envs": 8, "num_steps": 16, "critic_epochs": 4, "critic_minibatches": 4, "discount": 0.9}
REGION_PROBE |= {"trace": 0.8, "max_kl": 0.02, "cg_iterations": 10, "cg_tolerance": 1e-5, "line_search_shrink": 0.8}

SAC = REPLAY | {"gradient_steps": 4, "tau": 0.5, "n_step": 2, "target_entropy": -0.5}
SAC_PROBE = {"num_envs": 8, "num_steps": 4, "gradient_steps": 4, "batch_size": 64, "prefill": 128, "replay_size": 4096}
SAC_PROBE |= {"discount": 0.9, "n_step": 1, "tau": 0.2, "temperature": 0.001}  # too cold for entropy to add to a value


def actor_of(state):
    """What TRPO's update moves: the actor, and the critic beside it."""
    return state.actor, state.critic.params


TD3 = REPLAY | {"gradient_steps": 4, "tau": 0.5, "n_step": 2}
TD3_PROBE = {"num_envs": 8, "num_steps": 4, "gradient_steps": 4, "batch_size": 64, "prefill": 128, "replay_size": 4096}
TD3_PROBE |= {"discount": 0.9, "n_step": 1, "tau": 0.2, "target_noise": 0.0}
CASES = {
    "dqn": Case(dqn, CARTPOLE, rlx.DQNConfig(**DQN), DQN_PROBE, DISCRETE, max_steps=500),
    "dqn-plain": Case(
        dqn,
        CARTPOLE,
        rlx.DQNConfig(**DQN | {"n_step": 1, "priority_exponent": None, "huber": None, "double": False}),
        DQN_PROBE | {"huber": None, "tau": 0.2, "target_every": 1},
        DISCRETE,
        max_steps=500,
    ),
    "dqn-quantiles": Case(
        functools.partial(dqn, quantiles=8, dueling=True),
        CARTPOLE,
        rlx.DQNConfig(**DQN | {"priority_exponent": None}),
        DQN_PROBE | {"huber": 0.1},
        [probes.ObservationActionReward(), probes.Clock()],
        max_steps=500,
    ),
    "ppo": Case(ppo, CARTPOLE, rlx.PPOConfig(**TINY), PROBE, DISCRETE),
    "ppo-continuous": Case(
        functools.partial(
            ppo, learning_rate=1e-3
        ),  # faster, some seeds push the mean out of the box, where clipping hides what an action does
        PENDULUM,
        rlx.PPOConfig(**TINY, **SCALED),
        PROBE | RAW,
        CONTINUOUS,
        max_steps=600,
    ),
    "sac": Case(
        sac,
        PENDULUM,
        rlx.SACConfig(**SAC),
        SAC_PROBE,
        [*CONTINUOUS, probes.Clock(True)],
        lambda state: state.actor.params,
        500,
    ),
    "sac-discrete": Case(
        sac,
        CARTPOLE,
        rlx.SACConfig(**SAC | {"target_entropy": 1.0}),
        SAC_PROBE,
        DISCRETE,
        lambda state: state.actor.params,
        500,
    ),
    "td3": Case(
        td3,
        PENDULUM,
        rlx.TD3Config(**TD3),
        TD3_PROBE,
        [*CONTINUOUS, probes.Clock(True)],
        lambda state: state.actor.params,
        500,
    ),
    "ddpg": Case(
        functools.partial(td3, critics=1),
        PENDULUM,
        rlx.TD3Config(**TD3 | {"policy_delay": 1, "target_noise": 0.0}),
        TD3_PROBE,
        [probes.ObservationActionReward(True), probes.Clock(True)],
        lambda state: state.actor.params,
        500,
    ),
    "ppo-mixed": Case(
        ppo,
        probes.Mixed(),
        rlx.PPOConfig(**TINY, normalize_observation=True),
        PROBE | {"num_envs": 32, "entropy_coef": 0.05},  # less of either, and more seeds see one choice alone
        [probes.Mixed()],
    ),
    "ppo-bounded": Case(ppo, CARTPOLE, rlx.PPOConfig(**TINY, **BOUNDED), PROBE | LOOSE, [probes.Clock()]),
    "a2c": Case(a2c, CARTPOLE, rlx.A2CConfig(**SINGLE), SINGLE_PROBE, DISCRETE, max_steps=600),
    "a2c-continuous": Case(
        functools.partial(a2c, learning_rate=3e-3),
        PENDULUM,
        rlx.A2CConfig(**SINGLE, **SCALED, normalize_advantage=True),
        SINGLE_PROBE | RAW | {"normalize_advantage": False},
        CONTINUOUS,
        max_steps=2000,
    ),
    "reinforce": Case(reinforce, CARTPOLE, rlx.ReinforceConfig(**SINGLE), MONTE_CARLO_PROBE, DISCRETE, max_steps=600),
    "reinforce-continuous": Case(
        functools.partial(reinforce, learning_rate=3e-3),
        PENDULUM,
        rlx.ReinforceConfig(**SINGLE, **SCALED, normalize_advantage=True),
        MONTE_CARLO_PROBE | RAW | {"normalize_advantage": False},
        CONTINUOUS,
        max_steps=2000,
    ),
    "reinforce-mean": Case(reinforce, PENDULUM, rlx.ReinforceConfig(**SINGLE, baseline="mean"), {}, []),
    "trpo-continuous": Case(
        trpo,
        PENDULUM,
        rlx.TRPOConfig(**REGION, **SCALED),
        REGION_PROBE | RAW,
        CONTINUOUS,
        actor_of,
        inert=("cg_iterations", "line_search_tries"),
    ),
    "trpo-short": Case(
        trpo,
        PENDULUM,
        rlx.TRPOConfig(**REGION | {"cg_iterations": 1, "max_kl": 0.02}, **SCALED, line_search_tries=1),
        {},
        [],
        actor_of,
    ),
    "trpo": Case(trpo, CARTPOLE, rlx.TRPOConfig(**REGION), REGION_PROBE, DISCRETE, actor_of),
    "trpo-natural": Case(
        trpo,
        PENDULUM,
        rlx.TRPOConfig(**REGION, **SCALED, natural=True),
        REGION_PROBE | RAW,
        [probes.ContinuousTarget()],
        actor_of,
    ),
}
ONE_STEP = probes.ConstantReward, probes.ObservationReward, probes.ActionReward  # the target does not matter there
LAKE = rlx.envs.frozen_lake(max_steps=5)
TABLE = rlx.TabularConfig(num_envs=8, num_steps=10, exploration=0.3, initial_value=0.5, step_size_power=0.5)
LEARNT = {"num_envs": 2, "num_steps": 20, "discount": 0.9, "step_size": 0.5, "step_size_power": 0.0}
CASES |= {
    name: Case(
        functools.partial(td_control, **functions),
        LAKE,
        dataclasses.replace(TABLE, **config),
        LEARNT,
        [Indexed(probe) for probe in DISCRETE if name == "q_learning" or not isinstance(probe, ONE_STEP)],
        params=lambda state: (state.q, state.action[:8]),  # tables begin alike: the first actions do not
    )
    for name, functions, config in [
        ("dyna", {}, {"planning_steps": 2}),
        ("q_learning", {}, {}),
        ("sarsa", {"target": rlx.ops.sarsa_target}, {}),
        ("expected_sarsa", {"target": rlx.ops.expected_sarsa_target}, {}),
    ]
}


# Language: no environment, but prompts to answer ---------------------------------------------------------------------


@dataclasses.dataclass
class Prompted:
    """What the properties ask of an environment: observations (prompts of up to so many tokens), a space of actions."""

    longest: int
    action_space = gymnasium.spaces.MultiDiscrete([5] * 4)

    def reset(self, key):
        token_key, length_key = jax.random.split(key)
        length = jax.random.randint(length_key, (), 1, self.longest + 1)
        return None, rlx.lm.Prompts(jax.random.randint(token_key, (3,), 1, 5), length)

    @property
    def prompts(self):
        return jax.vmap(lambda key: self.reset(key)[1])(jax.random.split(jax.random.key(3), 16))

    @property
    def data(self):
        """As many responses as prompts."""
        response = jax.random.randint(jax.random.key(4), (16, 4), 0, 5)
        return rlx.lm.Sequences(*self.prompts, response, jax.random.randint(jax.random.key(5), (16,), 1, 5))


SAMPLING = rlx.lm.Sampling(max_tokens=4, end=0, temperature=0.8)
SHAPE = rlx.nets.TransformerConfig(5, width=8, layers=1, heads=2, hidden=8)
WRITER = rlx.nets.Transformer(SHAPE)


def table(head="logits"):
    """A policy that compiles sooner than a transformer."""
    return rlx.lm.enumerable.TabularModel(rlx.lm.enumerable.Language(5, 4), head)


def letters(sequences):
    """Reward: how far the tokens of the response add up, which depends on every token."""
    return jnp.sum(jnp.where(sequences.mask, sequences.response, 0), axis=1) / 4.0


def adam(learning_rate):
    return optax.flatten(optax.adam(learning_rate))


def sft(env, config):
    return rlx.sft(WRITER, env.data, adam(1e-2), SAMPLING, config), None


def grpo(env, config, model=WRITER):
    return rlx.grpo(model, env.prompts, letters, adam(3e-2), SAMPLING, config), None


def rlhf(env, config, own_critic=False):
    model = table() if own_critic else table("both")
    critic = table("both") if own_critic and config.advantage == "gae" else None
    algorithm = rlx.rlhf(model, env.prompts, letters, adam(3e-2), SAMPLING, config, critic=critic, ptx=env.data)
    return algorithm, None


def dpo(env, config, loss=rlx.lm.pairs.DPO):
    data = env.data
    other = data._replace(response=data.response[::-1], response_length=data.response_length[::-1])
    pairs = rlx.lm.Comparisons(data, other, jnp.zeros(16), jnp.zeros(16, bool))
    return rlx.dpo(table(), pairs, adam(3e-2), SAMPLING, config, loss=loss, ptx=data), None


def online_dpo(env, config):
    return rlx.online_dpo(table(), env.prompts, letters, adam(3e-2), SAMPLING, config), None


GRPO = {"num_prompts": 4, "samples": 2, "num_epochs": 2, "num_minibatches": 2, "clip": 0.01, "clip_high": 0.2}
GRPO |= {"scale_eps": 0.5, "kl_coef": 0.5, "missing_end_penalty": 0.3, "overlong_buffer": 2, "dynamic_sampling": 1}
RLHF = {"num_prompts": 4, "samples": 2, "num_epochs": 2, "num_minibatches": 2, "discount": 0.9, "clip": 0.01}
RLHF |= {"value_clip": 1.0, "entropy_coef": 0.1, "kl_target": 100.0, "kl_horizon": 100.0, "score_clip": 1.0}
RLHF |= {"whiten_score": True, "missing_end_penalty": 0.5, "ptx_coef": 0.1, "ptx_batch_size": 2}
TEXT, TABLE_TEXT = Prompted(longest=3), Prompted(longest=1)
tabular_grpo, critic_rlhf = functools.partial(grpo, model=table()), functools.partial(rlhf, own_critic=True)
CASES |= {
    "sft": Case(sft, TEXT, rlx.SFTConfig(batch_size=4), {}, []),
    "dpo": Case(dpo, TABLE_TEXT, rlx.DPOConfig(batch_size=4, label_smoothing=0.1, sft_coef=0.1, ptx_coef=0.1), {}, []),
    "dpo-ipo": Case(
        functools.partial(dpo, loss=rlx.ops.of_margin(rlx.ops.ipo_loss)),
        TABLE_TEXT,
        rlx.DPOConfig(batch_size=4, ptx_coef=0.1, length_average=True),
        {},
        [],
    ),
    "online-dpo": Case(online_dpo, TABLE_TEXT, rlx.OnlineDPOConfig(num_prompts=4, samples=3, label_noise=0.5), {}, []),
    "grpo": Case(tabular_grpo, TABLE_TEXT, rlx.GRPOConfig(**GRPO), {}, [], inert=("kl_where",)),
    "grpo-transformer": Case(grpo, TEXT, rlx.GRPOConfig(**GRPO), {}, []),
    "grpo-reward": Case(
        tabular_grpo, TABLE_TEXT, rlx.GRPOConfig(**GRPO | {"kl_form": "k1"}, kl_where="reward"), {}, []
    ),
    "rlhf": Case(rlhf, TABLE_TEXT, rlx.RLHFConfig(**RLHF), {}, []),
    "rlhf-critic": Case(
        critic_rlhf, TABLE_TEXT, rlx.RLHFConfig(**RLHF | {"whiten": False}), {}, [], inert=("value_coef",)
    ),
    "rlhf-rloo": Case(rlhf, TABLE_TEXT, rlx.RLHFConfig(**RLHF, advantage="leave_one_out"), {}, []),
}


class Judged:
    """Texts to score, and which of them were preferred."""

    action_space = gymnasium.spaces.Box(-np.inf, np.inf, ())

    def reset(self, key):
        prompt_key, token_key, length_key = jax.random.split(key, 3)
        response = jax.random.randint(token_key, (4,), 0, 5)
        length = jax.random.randint(length_key, (), 0, 5)
        return None, rlx.lm.Sequences(*TEXT.reset(prompt_key)[1], response, length)

    @property
    def comparisons(self):
        rejected = TEXT.data._replace(response=TEXT.data.response[::-1])
        return rlx.lm.Comparisons(TEXT.data, rejected, jnp.arange(16) / 8, jnp.arange(16) % 4 == 0)

    @property
    def rankings(self):
        prompt, length, response, size = TEXT.data
        response, size = (jnp.stack([x, x[::-1], jnp.roll(x, 5, axis=0)], axis=1) for x in (response, size))
        return rlx.lm.Rankings(prompt, length, response, size, 2 + jnp.arange(16) % 2)


def reward_model(env, config, data="comparisons"):
    return rlx.reward_model(SCORER, getattr(env, data), adam(1e-2), config), None


def mean_member(state):
    """Of any number of members as many parameters."""
    return jax.tree.map(lambda x: jnp.mean(x, axis=0), state.learner.params)


SCORER, JUDGED = rlx.nets.Transformer(SHAPE, head="score"), Judged()
JUDGING = rlx.RewardModelConfig(4, members=2, bootstrap=True, centring=0.1, margin=0.5, tie=0.5)
CASES |= {
    "reward-model": Case(reward_model, JUDGED, JUDGING, {}, [], mean_member, inert=("ranking",)),
    "reward-model-rankings": Case(
        functools.partial(reward_model, data="rankings"),
        JUDGED,
        dataclasses.replace(JUDGING, ranking="plackett_luce"),
        {},
        [],
        mean_member,
    ),
}


def best_of_n(env, config):
    params = table().init(jax.random.key(0), env.prompts.tokens)
    return rlx.best_of_n(table(), env.prompts, letters, letters, SAMPLING, config, params), None


def measured(state):
    """Nothing is learnt: what was measured so far, and the key, by which runs that begin alike differ."""
    return jnp.sum(state.proxy), jnp.sum(state.kl), jax.random.key_data(state.key) / 2.0**32


CASES["best-of-n"] = Case(best_of_n, TABLE_TEXT, rlx.BestOfNConfig(4, 4), {}, [], measured)
SCORING = ("reward-model", "reward-model-rankings")  # to act is to score: nothing is drawn
OFFLINE = ("sft", "dpo", "dpo-ipo", *SCORING)  # they learn from data: no episode ends


def of(name, *values, **options):
    """A row of a table of tests; those of one case run in one process, which compiles it once."""
    return pytest.param(name, *values, marks=pytest.mark.xdist_group(name), **options)


ALL = pytest.mark.parametrize("name", [of(name) for name in CASES])
KEY, OTHER = jax.random.key(0), jax.random.key(1)
STEPS = 2


@functools.cache
def algorithm_of(name):
    return CASES[name].make(CASES[name].env, CASES[name].config)[0]


@functools.cache
def compiled(name):
    """`init` and `step`, compiled once for all properties; neither donates."""
    return rlx.jit(algorithm_of(name).init), rlx.jit(algorithm_of(name).step)


def plain(tree):
    """Typed keys as integers, everything in numpy."""
    key = jax.dtypes.prng_key
    return jax.tree.map(lambda x: np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, key) else x), tree)


def assert_equal(x, y):
    jax.tree.map(np.testing.assert_array_equal, plain(x), plain(y))


def differ(x, y):
    return any(not np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, plain((x, y))), strict=True))


def signature(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype, getattr(x, "weak_type", False)), tree)


@ALL
def test_step_keeps_structure_shapes_and_types(name):
    algorithm = algorithm_of(name)
    state = jax.eval_shape(algorithm.init, KEY)
    after, metrics = jax.eval_shape(algorithm.step, state)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert signature(after) == signature(state)
    assert signature(algorithm.init(KEY)) == signature(state)  # outside jit too
    assert {type(metric) for metric in metrics.values()} == {jax.ShapeDtypeStruct}  # flat
    assert {metric.shape for metric in metrics.values()} == {()}
    assert {"episodes", "episode_return"} <= metrics.keys()


@ALL
def test_metrics_are_finite_and_states_used_once(name):
    """`init` gives no buffer twice, or donating the state would fail."""
    algorithm, (_, step) = algorithm_of(name), compiled(name)
    state = algorithm.init(KEY)
    buffers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(jax.tree.map(data, state)) if leaf.size]
    assert len(buffers) == len({*buffers})
    for _ in range(STEPS):
        state, metrics = step(state)
        assert np.all(np.isfinite([*metrics.values()])), metrics
    assert metrics["episodes"] > 0 or name in OFFLINE
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(plain(state)))


def observations(env, *leading):
    """First observations of episodes, with these leading axes."""
    keys = jax.random.split(jax.random.key(2), leading)
    reset = lambda key: env.reset(key)[1]  # noqa: E731
    for _ in leading:
        reset = jax.vmap(reset)
    return reset(keys)


def data(leaf):
    return leaf._base_array if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


@pytest.fixture(scope="module")
def other_process():
    """Another process that goes on with what was saved; one for all, as it takes seconds to begin."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), warnings.simplefilter, ("error",)) as pool:
        yield pool


@ALL
@pytest.mark.slow
def test_resuming_in_another_process_is_exact(name, tmp_path, other_process):
    algorithm, (init, _) = algorithm_of(name), compiled(name)
    whole, metrics = rlx.jit(lambda key: rlx.train(algorithm, key, 2 * STEPS))(KEY)
    ((half, _),) = rlx.chunks(algorithm, init(KEY), STEPS, every=STEPS)
    saved = save_checkpoint(tmp_path, 1, half)
    other_process.submit(resume, name, saved, tmp_path / "after").result()
    rest = jax.tree.map(lambda metric: metric[STEPS:], metrics)
    assert_equal(load_checkpoint(tmp_path / "after" / "2", (whole, rest)), (whole, rest))


def resume(name, saved, folder):
    """What the other process does."""
    algorithm, (init, _) = algorithm_of(name), compiled(name)
    state = load_checkpoint(saved, jax.eval_shape(init, KEY))
    ((state, metrics),) = rlx.chunks(algorithm, state, STEPS, every=STEPS)
    save_checkpoint(folder, 2, (state, metrics))


@ALL
def test_another_key_is_another_run_and_the_same_key_the_same(name):
    (init, step), params = compiled(name), CASES[name].params
    state, other = init(KEY), init(OTHER)
    assert differ(params(state), params(other))
    assert_equal(step(state), step(init(KEY)))
    assert differ(step(state)[0], step(other)[0])
    stirred = state._replace(key=OTHER)  # all alike but the key: exploration and minibatches differ
    after, again = step(state)[0], step(stirred)[0]
    assert differ(params(after), params(again))
    assert differ(after.key, state.key)
    assert differ(step(after)[0].key, after.key)


@ALL
def test_no_key_is_used_twice(name):
    algorithm = algorithm_of(name)
    with jax.debug_key_reuse(True):
        state = rlx.jit(algorithm.init, once=True)(jax.random.key(0))  # not KEY: the check marks the keys that it sees
        state, _ = rlx.jit(algorithm.step, once=True)(state)
        rlx.jit(algorithm.act, once=True)(state, jax.random.key(1), observations(CASES[name].env))


@ALL
def test_vmap_over_keys_equals_a_loop(name):
    init, step = compiled(name)
    keys = jax.random.split(KEY, 2)
    both = jax.vmap(lambda key: algorithm_of(name).step(algorithm_of(name).init(key)))
    together = rlx.jit(both)(keys)
    for index, key in enumerate(keys):
        one = plain(jax.tree.map(lambda leaf, index=index: leaf[index], together))
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5), one, plain(step(init(key))))


@ALL
def test_step_traces_once(name):
    step = compiled(name)[1]
    state = algorithm_of(name).init(KEY)  # eager: no weak type may slip in
    for _ in range(2):
        state, _ = step(state)
    step(compiled(name)[0](KEY))  # of a compiled init
    assert step._cache_size() == 1


@ALL
def test_act_takes_any_leading_axes_and_is_greedy_without_a_key(name):
    env, (init, _) = CASES[name].env, compiled(name)
    act, state = jax.jit(algorithm_of(name).act), init(KEY)
    observation = observations(env, 3, 50)
    greedy = act(state, None, observation)
    assert greedy.shape == (3, 50, *env.action_space.shape)
    assert greedy.dtype == (jnp.float32 if isinstance(env.action_space, gymnasium.spaces.Box) else jnp.int32)
    one = jax.tree.map(lambda x: x[1, 2], observation)
    np.testing.assert_allclose(act(state, None, one), greedy[1, 2], rtol=1e-4, atol=1e-6)
    assert differ(act(state, KEY, observation), act(state, OTHER, observation)) or name in SCORING


@ALL
def test_lowers_for_tpu_and_cuda(name):
    algorithm = algorithm_of(name)
    state = jax.eval_shape(algorithm.init, KEY)
    lowered = jax.jit(algorithm.step).trace(state).lower(lowering_platforms=("tpu", "cuda"))
    assert "stablehlo" in lowered.as_text()


# 8. No inert hyperparameter -------------------------------------------------------------------------------------------


def outcome(name, **changes):
    """Parameters after a few steps, flat."""
    case = CASES[name]
    algorithm, _ = case.make(case.env, dataclasses.replace(case.config, **changes))
    state, _ = rlx.train(algorithm, KEY, STEPS)
    return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(case.params(state))])


OTHERS = {"value": "mean", "mean": "none", "group": "batch", "sequence": "constant", "token": "sequence"}
OTHERS |= {"ratio_k3": "k2", "k1": "k2", "reward": "loss", "gae": "mean", "leave_one_out": "mean"}
OTHERS |= {"plackett_luce": "pairs"}


def perturbed(value):
    """Another value that a field may have; a number for None, a baseline for a name."""
    if value is None or isinstance(value, str):
        return 1e-3 if value is None else OTHERS[value]
    return not value if isinstance(value, bool) else 2 * value or 1 if isinstance(value, int) else 0.01 * value or 0.1


@functools.cache
def outcomes_of_floats(name):
    """The config as it is, and each float changed, in one program: floats may be tracers."""
    floats = {f.name: getattr(CASES[name].config, f.name) for f in dataclasses.fields(CASES[name].config)}
    floats = {field: value for field, value in floats.items() if isinstance(value, float)}
    run = rlx.jit(lambda values: outcome(name, **values), once=True)
    return run(floats), {field: run(floats | {field: perturbed(value)}) for field, value in floats.items()}


def fields(name):
    """All fields in the first case of a config's class; in a later case those that it sets otherwise."""
    config = CASES[name].config
    first = next(case for case in CASES.values() if type(case.config) is type(config))
    names = [field.name for field in dataclasses.fields(config)]
    if first is CASES[name]:
        others = [case.config for case in CASES.values() if type(case.config) is type(config)]
        assert all(len({getattr(other, f) for other in others}) > 1 for f in first.inert)
        return [f for f in names if f not in first.inert]
    return [f for f in names if getattr(config, f) != getattr(first.config, f)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:KL penalty")  # another form does, and may be a wrong one
@pytest.mark.parametrize(("name", "field"), [of(name, field) for name in CASES for field in fields(name)])
def test_no_field_of_the_config_is_inert(name, field):
    value = getattr(CASES[name].config, field)
    as_it_is, changed = outcomes_of_floats(name)
    if not isinstance(value, float):
        changed = {field: rlx.jit(lambda: outcome(name, **{field: perturbed(value)}), once=True)()}
    assert np.abs(changed[field] - as_it_is).max() > 1e-6  # rounding: 1e-8


# 7. Probes ------------------------------------------------------------------------------------------------------------

CUES = np.array([[-1.0], [1.0]])


def expected(env):
    """Observations, their values under the best policy, the best actions (None: any), and the tolerance."""
    continuous = isinstance(env.action_space, gymnasium.spaces.Box)
    choices = (CUES if continuous else np.array([0, 1])), np.array([[1.0]] if continuous else [1])
    match env:
        case Indexed():
            observation, *known = expected(env.env)
            return env.index(observation), *known
        case probes.ConstantReward():
            return np.zeros((1, 1)), [1.0], None, 0.05
        case probes.ObservationReward():
            return CUES, [-1.0, 1.0], None, 0.05
        case probes.DelayedReward():
            return np.array([[0.0], [1.0]]), [0.9, 1.0], None, 0.05
        case probes.ActionReward():
            return np.zeros((1, 1)), [1.0], choices[1], 0.1
        case probes.ObservationActionReward():
            return CUES, [1.0, 1.0], choices[0], 0.1
        case probes.Clock():
            return np.zeros((1, 1)), [10.0], None, 0.1  # 5.3 or 4.1: truncation was taken for termination
        case probes.ContinuousTarget():
            return CUES, [0.0, 0.0], CUES / 2, 0.15
        case probes.Mixed():
            cues = [(bright, choice) for bright in range(2) for choice in range(3)]
            return jax.vmap(env.observe)(probes.Cues(*jnp.array(cues).T)), [1.0] * 6, np.array(cues), 0.1


PROBES = [
    pytest.param(name, env, id=f"{name}-{type(getattr(env, 'env', env)).__name__}")
    for name in CASES
    for env in CASES[name].probes
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "env"), PROBES)
def test_solves_the_probe(name, env):
    case = CASES[name]
    algorithm, value = case.make(env, dataclasses.replace(case.config, **case.probe))
    observation, values, actions, tolerance = expected(env)

    @jax.jit
    @jax.vmap
    def run(key):
        state, _ = rlx.train(algorithm, key, case.max_steps)
        return value(state, observation), algorithm.act(state, None, observation)

    found, acted = run(jax.random.split(KEY, 2))  # two seeds
    np.testing.assert_allclose(found, [values] * 2, atol=tolerance)
    if actions is not None:
        acted = acted.clip(-1, 1) if isinstance(env.action_space, gymnasium.spaces.Box) else acted
        np.testing.assert_allclose(acted, [actions] * 2, atol=0.1)
