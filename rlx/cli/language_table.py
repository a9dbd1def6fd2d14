"""The table of the algorithms of language: how the command line makes each, and what it is measured by."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import rlx
from rlx.algorithms.best_of_n import BestOfNConfig, best_of_n
from rlx.algorithms.dpo import DPOConfig, dpo
from rlx.algorithms.reward_model import RewardModelConfig, reward_model
from rlx.cli.best_of_n import best_of_n_table
from rlx.cli.texts import Records, Reward, Texts, by_likelihood, by_log_ratios, by_reward, by_scores, task_records
from rlx.lm.tasks import TASKS
from rlx.nets.transformer import Transformer
from rlx.types import Algorithm, PyTree

if TYPE_CHECKING:
    from rlx.cli.language import LanguageSpec

Optimizer = optax.GradientTransformation


def make_sft(spec: LanguageSpec, texts: Texts, optimizer: Optimizer) -> Algorithm:
    """Supervised fine-tuning, of a policy that was given or from scratch."""
    data = jax.tree.map(jnp.asarray, texts.train)
    return rlx.sft(spec.model, data, optimizer, spec.sampling, spec.config, spec.params.get("policy"))


def make_reward_model(spec: LanguageSpec, texts: Texts, optimizer: Optimizer) -> Algorithm:
    """Reward models that begin with the policy's trunk."""
    params = spec.params.get("policy")
    return reward_model(Transformer(spec.network, head="score"), texts.train, optimizer, spec.config, params)


def make_grpo(spec: LanguageSpec, texts: Texts, optimizer: Optimizer) -> Algorithm:
    """GRPO against the reward."""
    prompts = jax.tree.map(jnp.asarray, texts.train)
    return rlx.grpo(spec.model, prompts, spec.judge(), optimizer, spec.sampling, spec.config, spec.params["policy"])


def make_rlhf(spec: LanguageSpec, texts: Texts, optimizer: Optimizer) -> Algorithm:
    """PPO; its critic begins with the reward model's trunk where that is of the policy's shape, else the policy's."""
    prompts, params = jax.tree.map(jnp.asarray, texts.train), spec.params["policy"]
    critic = critic_params = None
    if spec.config.advantage == "gae":
        shape = dataclasses.replace(spec.network, tied=True)
        critic = Transformer(shape, head="score", score_gain=0.0)
        trunk = dict(params["params"]["transformer"])
        if spec.scorer is not None and dataclasses.replace(spec.scorer, tied=True) == shape:
            trunk = jax.tree.map(lambda x: x[0], spec.params["scorer"]["params"]["transformer"])
        trunk.pop("unembedding", None)
        critic_params = {"params": {"transformer": trunk}}
    settings = optimizer, spec.sampling, spec.config
    return rlx.rlhf(spec.model, prompts, spec.judge(), *settings, params, critic, critic_params, texts.mix)


def make_dpo(spec: LanguageSpec, texts: Texts, optimizer: Optimizer) -> Algorithm:
    """Direct Preference Optimization."""
    settings = optimizer, spec.sampling, spec.config
    return dpo(spec.model, texts.train, *settings, spec.params["policy"], ptx=texts.mix)


def make_best_of_n(spec: LanguageSpec, texts: Texts, _: Optimizer) -> Algorithm:
    """Best-of-n by the reward; its worth by the task's gold reward, or by the same reward where there is no task."""
    prompts, proxy = jax.tree.map(jnp.asarray, texts.train), spec.judge()
    gold = texts.reward or proxy
    return best_of_n(spec.model, prompts, proxy, gold, spec.sampling, spec.config, spec.params["policy"])


Measured = tuple[str, Callable]


def reward_measure(
    spec: LanguageSpec, records: Records, reward: Reward | None, prompts: Callable, words: str
) -> Measured:
    """The reward of responses to prompts apart."""
    return f"{words} of responses to fresh prompts", by_reward(reward or spec.judge(), prompts, spec.sampling)


def sft_measure(spec: LanguageSpec, records: Records, reward: Reward | None, prompts: Callable, words: str) -> Measured:
    """The reward where there is one, else the likelihood of what was kept back."""
    if reward is None:
        return "log-probability of a token of records kept back (nats)", by_likelihood(spec.model, records.fresh)
    return reward_measure(spec, records, reward, prompts, words)


def dpo_measure(spec: LanguageSpec, records: Records, reward: Reward | None, prompts: Callable, words: str) -> Measured:
    """The reward where there is one, else how often the margin has the right sign."""
    if reward is None:
        ref_params = spec.params["policy"]
        return "implicit accuracy on pairs kept back", by_log_ratios(spec.model, ref_params, records.fresh)
    return reward_measure(spec, records, reward, prompts, words)


def accuracy_measure(
    spec: LanguageSpec, records: Records, reward: Reward | None, prompts: Callable, words: str
) -> Measured:
    """How often the preferred response has the higher score, among fresh comparisons or those kept back."""
    if spec.task:
        fresh = dataclasses.replace(spec.data, preference_scale=None)
        records = task_records("comparisons", TASKS[spec.task](), dataclasses.replace(fresh, size=1))
    words = "fresh comparisons" if spec.task else "comparisons kept back"
    return f"accuracy on {words}", by_scores(records.fresh)


class TextEntry(NamedTuple):
    """How the command line makes an algorithm of language.

    Attributes:
        config: its dataclass.
        make: `(spec, texts, optimizer) -> Algorithm`.
        records: what it learns from: "demonstrations", "comparisons" or "prompts".
        sequences: that an update learns from, by the config.
        measure: `(spec, records, reward, prompts, words) -> (words, Measure)`.
        gradient_steps: of an update, by the config.
        judged: whether it takes a reward.
        mixed: whether it takes pretraining text beside.
        metric: of its curve and its progress.
        metric_words: in words.
        more: `(spec) -> (state) -> what else result.json says`.
    """

    config: type
    make: Callable[[LanguageSpec, Texts, Optimizer], Algorithm]
    records: str
    sequences: Callable[[Any], int]
    measure: Callable[..., Measured] = reward_measure
    gradient_steps: Callable[[Any], int] = lambda config: 1
    judged: bool = False
    mixed: bool = False
    metric: str = "episode_return"
    metric_words: str = "reward of training responses"
    more: Callable[[LanguageSpec], Callable[[PyTree], dict[str, Any]]] = lambda spec: lambda state: {}


def responses(config: Any) -> int:
    """Responses of an update."""
    return config.num_prompts * config.samples


def minibatch_steps(config: Any) -> int:
    """Gradient steps of an update."""
    return config.num_epochs * config.num_minibatches


def table_of(spec: LanguageSpec) -> Callable[[PyTree], dict[str, Any]]:
    """The curve over n."""
    return lambda state: {"best_of_n": best_of_n_table(state, spec.config, spec.run.seeds)}


ORDER = "share of training pairs in the right order"
ALGORITHMS_OF_TEXT = {
    "sft": TextEntry(
        rlx.SFTConfig,
        make_sft,
        "demonstrations",
        lambda config: config.batch_size,
        sft_measure,
        metric="loss",
        metric_words="loss, nats a token",
    ),
    "reward-model": TextEntry(
        RewardModelConfig,
        make_reward_model,
        "comparisons",
        lambda config: 2 * config.batch_size,
        accuracy_measure,
        metric="accuracy",
        metric_words=ORDER,
    ),
    "rlhf": TextEntry(
        rlx.RLHFConfig,
        make_rlhf,
        "prompts",
        responses,
        gradient_steps=minibatch_steps,
        judged=True,
        mixed=True,
    ),
    "grpo": TextEntry(rlx.GRPOConfig, make_grpo, "prompts", responses, gradient_steps=minibatch_steps, judged=True),
    "dpo": TextEntry(
        DPOConfig,
        make_dpo,
        "comparisons",
        lambda config: 2 * config.batch_size,
        dpo_measure,
        mixed=True,
        metric="accuracy",
        metric_words=ORDER,
    ),
    "best-of-n": TextEntry(
        BestOfNConfig,
        make_best_of_n,
        "prompts",
        responses,
        judged=True,
        metric_words="gold reward of the best of all",
        more=table_of,
    ),
}
