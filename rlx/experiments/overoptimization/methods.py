"""What optimises against a proxy, and what its policy comes to: gold, proxy and KL along the way.

Axes: S seeds, B prompts, K points of a curve, G responses to a prompt.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rlx.algorithms.dpo import DPOConfig, dpo
from rlx.algorithms.grpo import GRPOConfig, grpo
from rlx.algorithms.rlhf import RLHFConfig, rlhf
from rlx.core.config import require, require_counts, require_finite, require_positive
from rlx.core.train import jit
from rlx.experiments.overoptimization.proxies import Proxy, ProxyConfig, label, proxy_reward, train_proxy
from rlx.experiments.overoptimization.world import World
from rlx.lm.best_of_n import pool_scores
from rlx.lm.rewards import Reward, over_members
from rlx.lm.sequences import Prompts, response_logits, sample, sampled_sequences, start_params
from rlx.ops.best_of_n import best_of_n_curve, best_of_n_kl_bound
from rlx.ops.kl import exact_kl
from rlx.ops.preferences import dpo_loss, ipo_loss, of_margin, slic_loss
from rlx.types import Algorithm, Key, PyTree

RL = ("ppo", "grpo", "reinforce")
DIRECT = {"dpo": dpo_loss, "ipo": ipo_loss, "slic": slic_loss}
GROUP = 8  # responses to a prompt, of GRPO
METHODS = ("best_of_n", *RL, *DIRECT)


@dataclasses.dataclass(frozen=True)
class MethodConfig:
    """How a policy is optimised, and how often it is looked at."""

    name: str = "best_of_n"  # best_of_n; ppo, grpo, reinforce; dpo, ipo, slic, which learn from the comparisons
    updates: int = 100  # of RL, or gradient steps of direct alignment
    every: int = 4  # updates between two points of a curve
    learning_rate: float = 5e-4  # of Adam
    warm_up: int = 100  # gradient steps to that rate: Adam's first steps are long, and cost KL that earns nothing
    responses: int = 128  # of an update, or comparisons
    kl_coef: float = 0.0  # beta, nats of KL cost that much reward; of direct alignment its own beta
    judged: int = 8  # G, responses to each of the prompts at every point

    def __post_init__(self) -> None:
        require_counts(self, "updates", "every", "responses", "judged")
        require_positive(self, "learning_rate")
        require(self, self.name in METHODS, f"must be one of {', '.join(METHODS)}", "name")
        require(self, self.updates % self.every == 0, "must be a multiple of every", "updates")
        require(self, self.name != "grpo" or self.responses % GROUP == 0, f"must be a multiple of {GROUP}", "responses")
        require(self, self.kl_coef >= 0, "must be 0 or more", "kl_coef")
        require(self, self.name not in DIRECT or self.kl_coef > 0, "direct alignment needs a beta", "kl_coef")
        require_finite(self)


class Curves(NamedTuple):
    """What S runs came to, at K points each; means over the responses to a prompt.

    Attributes:
        point: `[K]` the number n of best-of-n, else updates so far.
        kl: `[S, B, K]` nats from the first policy. Of best-of-n its upper bound.
        proxy: `[S, B, K]` reward above the first policy's mean on the same prompt; of direct alignment the share of its
            comparisons that its implicit reward has right.
        gold: `[S, B, K]` likewise.
        length: `[S, B, K]` tokens of a response.
    """

    point: jax.Array
    kl: jax.Array
    proxy: jax.Array
    gold: jax.Array
    length: jax.Array


def numbers_of(samples: int) -> tuple[int, ...]:
    """The numbers n that best-of-n is measured at, two to an octave, 1 to `samples`."""
    steps = np.arange(0.0, np.log2(samples) + 0.25, 0.5)
    return tuple(sorted({min(round(2.0**x), samples) for x in steps}))


def best_of_n_curves(world: World, config: ProxyConfig, proxy: Proxy) -> Curves:
    """Measure best-of-n by each seed's proxy, for all n from the world's one pool."""
    ns = numbers_of(world.config.samples)

    @jit
    def measure(proxy: Proxy) -> tuple[jax.Array, ...]:
        length = world.pool.response_length.astype(float)

        def of_seed(one: Proxy) -> tuple[jax.Array, ...]:
            scores = pool_scores(proxy_reward(world, config, one), world.pool)
            best = lambda what: jax.vmap(lambda p, x: best_of_n_curve(p, x, ns))(scores, what)  # noqa: E731
            return best(scores), best(world.pool_gold), best(length)

        return over_members(of_seed, proxy)

    scores, gold, length = measure(proxy)
    kl = jnp.broadcast_to(best_of_n_kl_bound(jnp.array(ns)), scores.shape)
    return Curves(jnp.array(ns), kl, scores - scores[..., :1], gold - gold[..., :1], length)


def judge(world: World, params: PyTree, key: Key, reward: Reward, samples: int) -> dict[str, jax.Array]:
    """What a policy comes to on the world's prompts: means `[B]` over `samples` responses to each.

    The KL is exact at every token given what was drawn before it, summed along the response: of far less variance
    than log-ratios of the tokens that were drawn.
    """
    drawn = sample(world.model, params, key, world.prompts, world.language.sampling, samples)
    sequences = sampled_sequences(world.prompts, drawn)
    logits, first = (response_logits(world.model, p, sequences) for p in (params, world.params))
    kl = jnp.sum(jnp.where(sequences.mask, exact_kl(logits, first), 0.0), axis=1)
    found = {"kl": kl, "proxy": reward(sequences), "gold": world.gold(sequences)}
    found |= {"length": sequences.response_length.astype(float)}
    return jax.tree.map(lambda x: jnp.mean(x.reshape(-1, samples), axis=1), found)


def optimizer_of(config: MethodConfig) -> optax.GradientTransformation:
    """Adam, with gradients clipped, that begins slowly."""
    rate = optax.linear_schedule(0.0, config.learning_rate, config.warm_up)
    return optax.flatten(optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate)))


def reinforcement(
    world: World, config: MethodConfig, reward: Reward, prompts: Prompts, start: PyTree | None = None
) -> Algorithm:
    """Make the algorithm that pushes a policy against a reward.

    Args:
        world: whose first policy is the KL penalty's reference, and where learning begins.
        config: which algorithm, and its settings.
        reward: what is maximised.
        prompts: what is drawn from.
        start: where learning begins, and what the penalty then refers to; None: the first policy.
    """
    params = world.params if start is None else start
    sampling, optimizer = world.language.sampling, optimizer_of(config)
    if config.name == "grpo":
        prompts_at_once = config.responses // GROUP
        kl = {"kl_coef": config.kl_coef, "kl_form": "k1", "kl_where": "reward"}
        settings = GRPOConfig(prompts_at_once, GROUP, num_epochs=2, num_minibatches=2, **kl)
        return grpo(world.model, prompts, reward, optimizer, sampling, settings, params)
    once = config.name == "reinforce"
    settings = RLHFConfig(
        num_prompts=config.responses,
        num_epochs=1 if once else 2,
        num_minibatches=1 if once else 2,
        advantage="mean" if once else "gae",
        kl_coef=config.kl_coef,
    )
    return rlhf(world.model, prompts, reward, optimizer, sampling, settings, params)


def run_curve(
    world: World, config: MethodConfig, algorithm: Algorithm, reward: Reward, key: Key, accuracy: bool = False
) -> tuple[dict[str, jax.Array], PyTree]:
    """Run an algorithm, and judge its policy before the first update and after every few: `[K, B]`, and its end."""
    init_key, judge_key = jax.random.split(key)
    points = config.updates // config.every
    start = {"proxy": pool_scores(reward, world.pool), "gold": world.pool_gold}
    start = jax.tree.map(lambda x: jnp.mean(x, axis=1), start)  # [B]

    def look(state: Any, key: Key) -> dict[str, jax.Array]:
        found = judge(world, state.learner.params, key, reward, config.judged)
        return found | {name: found[name] - start[name] for name in start}

    def advance(state: Any, key: Key) -> tuple[Any, dict[str, jax.Array]]:
        found = look(state, key)
        state, metrics = jax.lax.scan(lambda state, _: algorithm.step(state), state, length=config.every)
        if accuracy:
            found["proxy"] = jnp.broadcast_to(jnp.mean(metrics["accuracy"]), found["proxy"].shape)
        return state, found

    keys = jax.random.split(judge_key, points + 1)
    state, found = jax.lax.scan(advance, algorithm.init(init_key), keys[:-1])
    last = look(state, keys[-1])
    if accuracy:
        last["proxy"] = found["proxy"][-1]
    return jax.tree.map(lambda x, y: jnp.append(x, y[None], axis=0), found, last), state.learner.params


def curves_of(config: MethodConfig, found: dict[str, jax.Array]) -> Curves:
    """Curves of what `run_curve` found for S seeds, `[S, K, B]`."""
    found = jax.tree.map(lambda x: jnp.swapaxes(x, 1, 2), found)
    return Curves(jnp.arange(config.updates // config.every + 1) * config.every, **found)


def reinforcement_curves(
    world: World, method: MethodConfig, make_reward: Callable[[Any], Reward], inputs: PyTree
) -> Curves:
    """Push policies against the rewards of S seeds, in one program.

    Args:
        world: where.
        method: how.
        make_reward: a reward of one seed's inputs, such as `functools.partial(proxy_reward, world, config)`.
        inputs: `[S, ...]`, such as proxies; for one reward of one's own `jnp.arange(S)`.
    """
    prompts = world.fresh_prompts(4096)
    keys = jax.random.split(jax.random.fold_in(world.key, 3), jax.tree.leaves(inputs)[0].shape[0])

    @jit
    def run(keys: Key, inputs: PyTree) -> dict[str, jax.Array]:
        def of_seed(key: Key, one: PyTree) -> dict[str, jax.Array]:
            reward = make_reward(one)
            return run_curve(world, method, reinforcement(world, method, reward, prompts), reward, key)[0]

        return over_members(of_seed, keys, inputs)

    return curves_of(method, run(keys, inputs))


def iterated_curves(
    world: World, method: MethodConfig, config: ProxyConfig, seeds: int, rounds: int, restart: bool
) -> Curves:
    """Train a proxy on responses of the policy as it is by then, push, and again (Gao et al. 2022, sec. 4.5).

    Args:
        world: where.
        method: how; its updates are those of all rounds together, as far as they divide into points of the curve.
        config: the proxy of each round, with as many comparisons each.
        seeds: S.
        rounds: k.
        restart: whether each round begins with the first policy, else with the last.
    """
    prompts, number = world.fresh_prompts(4096), config.comparisons + world.config.held_out
    part = dataclasses.replace(method, updates=method.updates // (rounds * method.every) * method.every)
    settings = dataclasses.replace(world.config, comparisons=config.comparisons)

    def one_round(params: PyTree, key: Key) -> tuple[PyTree, dict[str, jax.Array]]:
        prompt_key, pair_key, proxy_key, run_key = jax.random.split(key, 4)
        asked = world.language.prompts(prompt_key, number)
        drawn = sample(world.model, params, pair_key, asked, world.language.sampling, 2)
        pairs = jax.tree.map(lambda x: x.reshape(number, 2, *x.shape[1:]), sampled_sequences(asked, drawn))
        here = world._replace(config=settings, pairs=pairs, pair_gold=world.gold(pairs))
        reward = proxy_reward(here, config, train_proxy(here, config, proxy_key))
        start = world.params if restart else params
        found, params = run_curve(here, part, reinforcement(here, part, reward, prompts, start), reward, run_key)
        return params, found

    def of_seed(key: Key) -> dict[str, jax.Array]:
        first = start_params(world.model, jax.random.key(0), world.params)  # its values begin at 0, whatever the key
        _, found = jax.lax.scan(one_round, first, jax.random.split(key, rounds))
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), found)  # [rounds K', B]

    keys = jax.random.split(jax.random.fold_in(world.key, 4), seeds)
    found = jit(lambda keys: over_members(of_seed, keys))(keys)
    point = jnp.concatenate(
        [jnp.arange(part.updates // part.every + 1) * part.every + r * part.updates for r in range(rounds)]
    )
    return Curves(point, **jax.tree.map(lambda x: jnp.swapaxes(x, 1, 2), found))


def direct_curves(world: World, method: MethodConfig, config: ProxyConfig, seeds: int) -> Curves:
    """Align policies with comparisons directly, without a proxy: Rafailov et al. 2024, arXiv 2406.02900."""
    keys = jax.random.split(jax.random.fold_in(world.key, 2), seeds)
    loss = of_margin(DIRECT[method.name])
    settings = DPOConfig(batch_size=method.responses, beta=method.kl_coef)

    @jit
    def run(keys: Key) -> dict[str, jax.Array]:
        def of_seed(key: Key) -> dict[str, jax.Array]:
            label_key, run_key = jax.random.split(key)
            data, sampling = label(label_key, world, config), world.language.sampling
            algorithm = dpo(world.model, data, optimizer_of(method), sampling, settings, world.params, loss)
            return run_curve(world, method, algorithm, world.gold, run_key, accuracy=True)[0]

        return over_members(of_seed, keys)

    return curves_of(method, run(keys))
