"""From the words of `rlx sft`, `rlx grpo` and their like to a run of language."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import rlx
from rlx.cli.language import LanguageSpec, params_shape
from rlx.cli.language_table import ALGORITHMS_OF_TEXT
from rlx.cli.metrics import failed_seeds, read_rows
from rlx.cli.options import (
    DataOptions,
    LanguageRunOptions,
    OptimizerConfig,
    PolicyOptions,
    PtxOptions,
    RewardOptions,
    SamplingOptions,
    TextOptions,
    TransformerOptions,
)
from rlx.cli.parsing import UsageError, default_folder, leading_words, parse, read_spec
from rlx.cli.spec import read_presets
from rlx.cli.texts import file_stem, fingerprint, prompts_of, same_tokens, tokenizer_named
from rlx.cli.train import load_newest, warn
from rlx.core.checkpoint import checkpoint_steps
from rlx.core.train import jit
from rlx.envs.host import unknown
from rlx.lm.generate_and_learn import generate
from rlx.lm.rewards import member_scores, normalize_reward
from rlx.lm.tasks import TASKS
from rlx.nets.transformer import Transformer
from rlx.types import PyTree

POLICIES = ("sft", "rlhf", "grpo", "dpo")  # runs that leave a policy
KINDS: dict[str, Any] = {
    "run": LanguageRunOptions,
    "data": DataOptions,
    "text": TextOptions,
    "policy": PolicyOptions,
    "reward": RewardOptions,
    "ptx": PtxOptions,
    "optimizer": OptimizerConfig,
    "network": TransformerOptions,
    "sampling": SamplingOptions,
}
NORMALIZED_ON = 256  # responses of the given policy on which a reward model's scores get mean 0 and deviation 1


def text_preset(algorithm: str, task: str, variant: str | None = None) -> dict[str, Any]:
    """The options that a command has without flags, by name; a variant of GRPO's keeps the sizes.

    Raises:
        ValueError: presets.toml has a field that no option has.
    """
    tuned = read_presets().get(algorithm, {})
    values = {**tuned.get("default", {}), **tuned.get(task, {})}
    kinds = KINDS | {"config": ALGORITHMS_OF_TEXT[algorithm].config}
    known = {field.name for kind in kinds.values() for field in dataclasses.fields(kind)}
    if values.keys() - known:
        raise ValueError(f"presets.toml: {algorithm} has no field {', '.join(values.keys() - known)}")

    def fill(kind: Any) -> Any:
        return kind(**{field.name: values[field.name] for field in dataclasses.fields(kind) if field.name in values})

    found = {name: fill(kind) for name, kind in kinds.items()}
    if variant is not None:
        sizes = {name: getattr(found["config"], name) for name in ("num_prompts", "samples")}
        found["config"] = dataclasses.replace(rlx.GRPO_PRESETS[variant], **sizes)
    return found


def take_flag(argv: list[str], flag: str) -> tuple[str | None, list[str]]:
    """Take a flag and its value out of the arguments; None where it is not there."""
    for index, word in enumerate(argv):
        if word == flag:
            if index + 1 == len(argv):
                raise UsageError(f"{flag} needs a value")
            return argv[index + 1], argv[:index] + argv[index + 2 :]
        if word.startswith(f"{flag}="):
            return word.partition("=")[2], argv[:index] + argv[index + 1 :]
    return None, argv


def read_language(algorithm: str, argv: list[str]) -> LanguageSpec:
    """Read a command into a run, with the parameters that it is given.

    Raises:
        UsageError, ValueError: what is wrong, in one line.
    """
    words, rest = leading_words(argv)
    program, helps = f"rlx {algorithm} [TASK]", bool({"-h", "--help"} & set(argv))
    if len(words) > 1:
        raise UsageError(f"{program} takes one task, not {' '.join(words)}")
    task = words[0] if words else ""
    if task and task not in TASKS:
        raise UsageError(unknown("task", task, TASKS) + f" (there are: {', '.join(TASKS)})")
    variant, rest = take_flag(rest, "--preset") if algorithm == "grpo" else (None, rest)
    if variant is not None and variant not in rlx.GRPO_PRESETS:
        raise UsageError(unknown("preset", variant, rlx.GRPO_PRESETS) + f" (there are: {', '.join(rlx.GRPO_PRESETS)})")
    folder, _ = take_flag(rest, "--policy")
    if folder is None and algorithm != "sft" and not helps:
        raise UsageError(
            f"{program} begins with a policy: --policy RUN, as `rlx sft {task or 'copy'} --out RUN` leaves"
        )
    source = None if folder is None or helps else policy_spec(Path(folder))
    task = task or (source.task if source else "")
    options = text_preset(algorithm, task, variant)
    options["sampling"] = default_sampling(options["sampling"], task, source)
    if getattr(options["config"], "overlong_buffer", 0):
        room = max(1, options["sampling"].max_tokens // 10)  # the paper's share of its longest response, about
        options["config"] = dataclasses.replace(options["config"], overlong_buffer=room)
    given = parse({name: options[name] for name in flags_of(algorithm, source)}, rest, program)
    return with_parameters(algorithm, task, options | given, source)


def flags_of(algorithm: str, source: LanguageSpec | None) -> list[str]:
    """Which options a command has flags for: a policy that is given has its shape and tokenizer."""
    names = ["run", "data", "policy", "config"]
    names += ["reward"] * ALGORITHMS_OF_TEXT[algorithm].judged + ["ptx"] * ALGORITHMS_OF_TEXT[algorithm].mixed
    names += ["optimizer"] * (algorithm != "best-of-n")
    names += ["text", "network"] * (algorithm == "sft" and source is None)
    return [*names, "sampling"]


def default_sampling(sampling: SamplingOptions, task: str, source: LanguageSpec | None) -> SamplingOptions:
    """As the policy was sampled; with responses as long as the task needs where it is another."""
    if source is not None:
        sampling = source.sampling
    if task and (source is None or source.task != task):
        sampling = dataclasses.replace(sampling, max_tokens=TASKS[task]().max_response)
    return sampling


def with_parameters(algorithm: str, task: str, options: dict[str, Any], source: LanguageSpec | None) -> LanguageSpec:
    """Make the run, and load what it is given: the policy, and the reward model with its scale."""
    tokens = source.tokens if source else str(options["text"].tokenizer or task or "bytes")
    if options["text"].tokenizer and task:
        raise UsageError(f"--tokenizer goes with --data alone: {task} has an alphabet of its own")
    if source and task and not same_tokens(task, tokens):
        raise UsageError(vocabulary_error("--policy", options["policy"].policy, tokens, f"{task} has", task))
    tokenizer = tokenizer_named(tokens)
    sampling = dataclasses.replace(options["sampling"], end=tokenizer.end)
    network = source.network if source else dataclasses.replace(options["network"], vocabulary=tokenizer.vocabulary)
    run = options["run"]
    out = run.out or default_folder("", algorithm, task or file_stem(options["data"].data))
    names = ("data", "policy", "reward", "ptx", "config", "optimizer")
    spec = LanguageSpec(
        algorithm,
        task,
        dataclasses.replace(run, out=out),
        **{name: options[name] for name in names},
        network=network,
        sampling=sampling,
        tokens=tokens,
        given={},
    )
    if source:
        spec = dataclasses.replace(
            spec, given={"policy": load_params(source, spec.policy.policy_seed, "--policy-seed")}
        )
    if spec.reward.reward is not None:
        spec = with_reward(spec, spec.reward.reward)
    if spec.files:
        spec = dataclasses.replace(spec, sha256=fingerprint((spec.texts.train, spec.texts.mix)))
    return spec


def with_reward(spec: LanguageSpec, folder: Path) -> LanguageSpec:
    """Give a run its reward model, whose scores get mean 0 and deviation 1 on the first policy's responses."""
    source = read_spec(folder)
    if not isinstance(source, LanguageSpec) or source.algorithm != "reward-model":
        raise UsageError(f"--reward {folder} is no reward model: it is a run of {source.algorithm}")
    if not same_tokens(source.tokens, spec.tokens):
        raise UsageError(vocabulary_error("--reward", folder, source.tokens, "the policy has", spec.tokens))
    scorer, members = source.network, source.config.members
    params = load_params(source, spec.reward.reward_seed, "--reward-seed")
    scale = {"shift": jnp.zeros(members), "scale": jnp.ones(members)}
    given = {**(spec.given or {}), "scorer": params, **scale}
    spec = dataclasses.replace(spec, scorer=scorer, members=members, given=given)
    model, prompts = Transformer(scorer, head="score"), jax.tree.map(jnp.asarray, prompts_of(spec.texts.train))

    @jit
    def measure(given: dict[str, PyTree]) -> Any:
        key = jax.random.key(0)
        drawn, _ = generate(spec.model, given["policy"], key, prompts, spec.sampling, NORMALIZED_ON, 1)
        return normalize_reward(lambda sequences: member_scores(model, given["scorer"], sequences), drawn)

    found = measure(given)
    return dataclasses.replace(
        spec, given=given | {"shift": jnp.asarray(found.shift), "scale": jnp.asarray(found.scale)}
    )


def vocabulary_error(flag: str, folder: Path | None, tokens: str, other: str, theirs: str) -> str:
    """Say that two do not speak the same language."""
    return (
        f"{flag} {folder} has another vocabulary, {describe_tokens(tokens)}; {other} {describe_tokens(theirs)}: "
        "both must have the same"
    )


def describe_tokens(name: str) -> str:
    """Say what a tokenizer is."""
    if name in TASKS:
        return f"the characters {TASKS[name]().tokenizer.characters!r}"
    return name if name == "bytes" else f"that of {name}"


def policy_spec(folder: Path) -> LanguageSpec:
    """Read the run that left a policy."""
    spec = read_spec(folder)
    if not isinstance(spec, LanguageSpec) or spec.algorithm not in POLICIES:
        raise UsageError(f"--policy {folder} is no policy of language: it is a run of {spec.algorithm}")
    return spec


def load_params(spec: LanguageSpec, seed: int | None, flag: str) -> PyTree:
    """Load the parameters of one seed of a run: of its policy, or of all members of its reward model."""
    folder = spec.run.out
    assert folder is not None
    failed = failed_seeds(read_rows(folder / "metrics.jsonl"))
    seed = seed if seed is not None else next((s for s in spec.seeds if s not in failed), None)
    if seed not in spec.seeds:
        raise UsageError(f"{flag} {seed}: the seeds of {folder} are {spec.seeds}, failed: {[*failed]}")
    if not checkpoint_steps(folder / "checkpoints"):
        raise UsageError(f"{folder} has no checkpoint yet: nothing to begin with")
    scores = spec.algorithm == "reward-model"
    axes = [len(spec.seeds)] * (len(spec.seeds) > 1) + ([spec.config.members] if scores else [])
    like = params_shape(Transformer(spec.network, head="score" if scores else "logits"))
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct((*axes, *x.shape), x.dtype), like)
    _, params = load_newest(folder / "checkpoints", like, warn, "learner.params")
    return jax.tree.map(lambda x: x[spec.seeds.index(seed)], params) if len(spec.seeds) > 1 else params
