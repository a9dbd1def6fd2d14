"""The dataclasses behind the flags, other than the algorithms' own configs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import optax
import tyro

from rlx.core.config import require, require_counts, require_finite, require_positive
from rlx.lm.sequences import Sampling
from rlx.nets.mlp import ACTIVATIONS
from rlx.nets.transformer import TransformerConfig


@dataclass(frozen=True)
class RunOptions:
    """What to run and where to put it."""

    seeds: int = 1  # how many seeds to train at once
    seed: int = 0  # the first of them; the others count up from it
    steps: int = 100_000  # environment steps per seed; never exceeded
    out: Path | None = None  # run folder; default: runs/ALGORITHM-ENV-TIME
    gymnasium: bool = False  # train in gymnasium's own environment, also where rlx has a JAX one
    log_every: int | None = None  # updates per line of metrics.jsonl; default: about 100 lines a run
    checkpoint_seconds: float = 15.0  # time between two checkpoints, s
    keep_checkpoints: int = 3  # how many of the last ones to keep
    progress: bool = True  # show the progress bar
    tensorboard: bool = False  # write the metrics as TensorBoard's event files too, below RUN/tensorboard

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require_counts(self, "seeds", "steps", "keep_checkpoints")
        require(self, 0 <= self.seed < 2**31, "must be from 0 to 2**31 - 1", "seed")
        require(self, self.log_every is None or self.log_every > 0, "must be above 0", "log_every")
        require(self, self.checkpoint_seconds >= 0, "must not be negative", "checkpoint_seconds")


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam behind a clip of the gradient's global norm."""

    learning_rate: float = 3e-4  # Adam's step size; 1e-4 to 3e-3
    anneal: bool = True  # bring the learning rate down to 0 in a straight line over the run
    max_grad_norm: float | None = 0.5  # scale gradients down to this global norm; None: leave them
    eps: float = 1e-5  # added to Adam's denominator

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require_finite(self)
        require_positive(self, "learning_rate", "eps")
        require(self, self.max_grad_norm is None or self.max_grad_norm > 0, "must be above 0 or None", "max_grad_norm")

    def build(self, num_steps: int) -> optax.GradientTransformation:
        """Make the optimiser for a run of `num_steps` gradient steps."""
        rate = optax.linear_schedule(self.learning_rate, 0.0, num_steps) if self.anneal else self.learning_rate
        clip = optax.identity() if self.max_grad_norm is None else optax.clip_by_global_norm(self.max_grad_norm)
        return optax.flatten(optax.chain(clip, optax.adam(rate, eps=self.eps)))  # one vector: fewer, larger kernels


@dataclass(frozen=True)
class NetworkConfig:
    """Multilayer perceptrons, one for the actor and one for the critic."""

    hidden: tuple[int, ...] = (64, 64)  # widths of the hidden layers
    activation: Literal["tanh", "relu", "gelu", "silu"] = "tanh"  # between the layers

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require(self, all(width > 0 for width in self.hidden), "widths must be above 0", "hidden")
        require(self, self.activation in ACTIVATIONS, f"must be one of {', '.join(ACTIVATIONS)}", "activation")


@dataclass(frozen=True)
class QNetworkConfig(NetworkConfig):
    """A multilayer perceptron for the values of all actions."""

    dueling: bool = False  # two last hidden layers, for the value and for the advantages
    quantiles: int | None = None  # of each action's return, learnt as a distribution; 50 to 200; None: its mean alone

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        super().__post_init__()
        require(self, self.quantiles is None or self.quantiles > 0, "must be above 0 or None", "quantiles")


@dataclass(frozen=True)
class LanguageRunOptions(RunOptions):
    """What to run and where to put it."""

    steps: int = 200  # updates per seed
    out: Path | None = None  # run folder; default: runs/ALGORITHM-TASK-TIME
    gymnasium: Annotated[bool, tyro.conf.Suppress] = False  # there are no environments


@dataclass(frozen=True)
class DataOptions:
    """Which texts to learn from; without files the task makes them."""

    data: tuple[Path, ...] = ()  # files or folders: .jsonl, .jsonl.gz, for sft .txt too; with a task, in its alphabet
    size: int = 4096  # records that the task makes
    data_seed: int = 0  # by which it makes them
    preference_scale: float | None = None  # of its comparisons: noise as of Bradley and Terry; None: no noise
    max_prompt: int = 256  # tokens of a file's prompts at most
    too_long: Literal["error", "skip", "truncate"] = "error"  # what becomes of a file's longer records
    on_error: Literal["raise", "skip"] = "raise"  # a bad line of a file: stop, or leave it out and count it
    held_out: float = 0.1  # share of a file's records, its last ones, kept back for evaluation if there is no task

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require_counts(self, "size", "max_prompt")
        require(self, self.data_seed >= 0, "must be 0 or more", "data_seed")
        require(self, 0 < self.held_out < 1, "must be above 0 and below 1", "held_out")
        scale = self.preference_scale
        require(self, scale is None or scale > 0, "must be above 0 or None", "preference_scale")


@dataclass(frozen=True)
class TextOptions:
    """What a model that begins at random reads."""

    tokenizer: Path | None = None  # tokenizer.json of Hugging Face, or its folder; default: the task's, or bytes


@dataclass(frozen=True)
class PolicyOptions:
    """Where the model comes from."""

    policy: Path | None = None  # run folder of the policy to begin with
    policy_seed: int | None = None  # which of its seeds; default: the first that did not fail


@dataclass(frozen=True)
class RewardOptions:
    """What judges responses."""

    reward: Path | None = None  # run folder of a reward model; default: the task's gold reward
    reward_seed: int | None = None  # which of its seeds; default: the first that did not fail
    ensemble: Literal["mean", "min", "uncertainty", "quantile"] = "mean"  # what becomes of its members' scores
    ensemble_amount: float | None = None  # variances taken off ("uncertainty"), or which quantile, 0 to 1 ("quantile")


@dataclass(frozen=True)
class PtxOptions:
    """Text whose loss is mixed in, weighed by `ptx_coef`."""

    ptx: tuple[Path, ...] = ()  # files or folders, as sft's --data takes them; default: the task's demonstrations


@dataclass(frozen=True)
class TransformerOptions(TransformerConfig):
    """Shape of the transformer."""

    vocabulary: Annotated[int, tyro.conf.Suppress] = 1  # the tokenizer's


@dataclass(frozen=True)
class SamplingOptions(Sampling):
    """How responses are drawn."""

    max_tokens: int = 64  # T, of a response, its end included; with a task: as many as it needs
    end: Annotated[int, tyro.conf.Suppress] = 0  # the tokenizer's
