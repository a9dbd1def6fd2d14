"""What a run of language is, as data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from rlx.cli.language_table import ALGORITHMS_OF_TEXT, TextEntry
from rlx.cli.options import (
    DataOptions,
    LanguageRunOptions,
    OptimizerConfig,
    PolicyOptions,
    PtxOptions,
    RewardOptions,
    SamplingOptions,
    TransformerOptions,
)
from rlx.cli.spec import Spec
from rlx.cli.texts import Records, Reward, Texts, file_records, fingerprint, prompts_of, task_records, tokenizer_named
from rlx.core.checkpoint import load_checkpoint
from rlx.lm.rewards import Normalization, reward_of
from rlx.lm.sequences import Prompts
from rlx.lm.tasks import TASKS
from rlx.nets.transformer import Transformer
from rlx.types import Algorithm, Key, PyTree

GIVEN = "given"  # folder of a run: the parameters that it began with


@dataclass(frozen=True)
class LanguageSpec:
    """A whole run of language as data: what config.json holds. To the drivers it is what `Spec` is.

    Attributes:
        task: by name; "" where there are files alone.
        tokens: the tokenizer: a task's name, "bytes", or a file.
        scorer: shape of the reward model that it was given; None: none.
        members: of that.
        sha256: of the records, where they are from files.
        given: parameters that it began with, by name; None: they are in its folder.
    """

    algorithm: str
    task: str
    run: LanguageRunOptions
    data: DataOptions
    policy: PolicyOptions
    reward: RewardOptions
    ptx: PtxOptions
    config: Any
    optimizer: OptimizerConfig
    network: TransformerOptions
    sampling: SamplingOptions
    tokens: str
    scorer: TransformerOptions | None = None
    members: int = 1
    sha256: str = ""
    given: dict[str, PyTree] | None = dataclasses.field(default=None, compare=False, repr=False)

    unit: ClassVar[str] = "sequences"
    unit_words: ClassVar[str] = "sequences"
    episodes: ClassVar[int] = 512  # prompts of the final evaluation
    greedy: ClassVar[bool] = False  # which samples: that is what the methods are about
    host: ClassVar[bool] = False
    digits: ClassVar[int] = 3  # of what it is measured by, behind the point

    @property
    def entry(self) -> TextEntry:
        """Its line of the table."""
        return ALGORITHMS_OF_TEXT[self.algorithm]

    @property
    def metric(self) -> str:
        """Of its curve and its progress."""
        return self.entry.metric

    @property
    def metric_words(self) -> str:
        """The same in words."""
        return self.entry.metric_words

    @property
    def place(self) -> str:
        """What it is about."""
        return self.task or self.file_name

    @property
    def files(self) -> tuple[Path, ...]:
        """All that it reads."""
        return self.data.data + self.ptx.ptx

    @property
    def file_name(self) -> str:
        """The first of them, or "text"."""
        return self.files[0].name if self.files else "text"

    @property
    def seeds(self) -> list[int]:
        """The seeds of the run."""
        return list(range(self.run.seed, self.run.seed + self.run.seeds))

    @property
    def updates(self) -> int:
        """Algorithm steps of the run."""
        return self.run.steps

    @property
    def per_update(self) -> int:
        """Sequences that an update learns from."""
        return self.entry.sequences(self.config)

    @property
    def evaluation(self) -> str:
        """How it is evaluated at its end, in words."""
        return f"{self.texts.measured}" + ("" if self.data.data and not self.task else f", {self.episodes} each")

    @property
    def names(self) -> dict[str, str]:
        """What result.json says it was."""
        return {"algorithm": self.algorithm, "task": self.place, "measure": self.texts.measured}

    def taken(self, updates: int) -> int:
        """Sequences per seed after some updates."""
        return updates * self.per_update

    @property
    def model(self) -> Transformer:
        """The language model."""
        return Transformer(self.network)

    def make(self) -> tuple[Texts, Algorithm]:
        """Make what it learns from and the algorithm.

        Raises:
            ValueError: something about the run cannot work.
        """
        texts, size = self.texts, getattr(self.config, "batch_size", 0)
        if size > (number := len(jax.tree.leaves(texts.train)[0])):
            raise ValueError(f"batch_size={size}: there are {number} records to learn from")
        optimizer = self.optimizer.build(self.updates * self.entry.gradient_steps(self.config))
        return texts, self.entry.make(self, texts, optimizer)

    @cached_property
    def params(self) -> dict[str, PyTree]:
        """The parameters that it was given: of the policy, of the reward model."""
        if self.given is not None:
            return self.given
        like = self.given_shapes()
        assert self.run.out is not None
        return load_checkpoint(self.run.out / GIVEN / "0", like) if like else {}

    def given_shapes(self) -> dict[str, PyTree]:
        """Shapes of those."""
        like: dict[str, PyTree] = {}
        if self.policy.policy is not None:
            like["policy"] = params_shape(self.model)
        if self.scorer is not None:
            one = params_shape(Transformer(self.scorer, head="score"))
            like["scorer"] = jax.tree.map(lambda x: jax.ShapeDtypeStruct((self.members, *x.shape), x.dtype), one)
            like["shift"] = like["scale"] = jax.ShapeDtypeStruct((self.members,), jnp.float32)
        return like

    @cached_property
    def texts(self) -> Texts:
        """What it learns from; read or made once."""
        task, entry = TASKS[self.task]() if self.task else None, self.entry
        records = self._records(entry.records, self.data.data, split=task is None)
        if records is None:
            raise ValueError(f"{self.algorithm}: say what to learn from: a task ({', '.join(TASKS)}) or --data FILE")
        mix = self._mix()
        if self.sha256 and fingerprint((records.train, mix and mix.train)) != self.sha256:
            raise ValueError(f"{self.file_name} and its like are not what the run began with: put the old files back")
        reward = self._reward(task.reward if task else None)

        def prompts(key: Key, num: int) -> Prompts:
            return Prompts(*task.prompts(key, num)) if task else prompts_of(records.fresh(key, num))

        judged = task.reward if task else reward
        words, measure = entry.measure(self, records, judged, prompts, "gold reward" if task else "reward")
        reports = {"data": records.report, "ptx": mix and mix.report}
        return Texts(
            tokenizer_named(self.tokens),
            records.train,
            mix and mix.train,
            prompts,
            measure,
            words,
            judged,
            entry.more(self),
            {name: report for name, report in reports.items() if report is not None},
        )

    def _records(self, kind: str, files: tuple[Path, ...], split: bool) -> Records | None:
        """Records of files, or else of the task; None where there is neither."""
        if files:
            options, tokenizer = dataclasses.replace(self.data, data=files), tokenizer_named(self.tokens)
            return file_records(kind, options, tokenizer, self.sampling.max_tokens, split)
        return task_records(kind, TASKS[self.task](), self.data) if self.task else None

    def _mix(self) -> Records | None:
        """Text whose loss is mixed in; None where there is none, or it weighs nothing."""
        if not self.ptx.ptx and not getattr(self.config, "ptx_coef", 0.0):
            return None
        mix = self._records("demonstrations", self.ptx.ptx, split=False)
        if mix is None:
            raise ValueError(f"{self.algorithm}: ptx_coef={self.config.ptx_coef} needs text: --ptx FILE")
        return mix

    def _reward(self, gold: Reward | None) -> Reward | None:
        if self.scorer is None:
            return gold
        normalization = Normalization(self.params["shift"], self.params["scale"])
        how, amount = self.reward.ensemble, self.reward.ensemble_amount
        model = Transformer(self.scorer, head="score")
        return reward_of(model, self.params["scorer"], how, amount, normalization=normalization)

    def judge(self) -> Reward:
        """What judges responses while it learns."""
        reward = self._reward(TASKS[self.task]().reward if self.task else None)
        if reward is None:
            raise ValueError(f"{self.algorithm} needs a reward: name a task ({', '.join(TASKS)}), or give --reward RUN")
        return reward

    def to_json(self) -> dict[str, Any]:
        """Give the run as JSON values."""
        return {name: plain(getattr(self, name)) for name in (*NAMES, *PARTS)}

    @classmethod
    def from_json(cls, data: dict[str, Any], folder: Path) -> LanguageSpec:
        """Read what `to_json` gave, of a run that lies in `folder` by now.

        Raises:
            ValueError, KeyError, TypeError: it is something else.
        """
        kinds = PARTS | {"config": ALGORITHMS_OF_TEXT[data["algorithm"]].config}
        parts = {name: part(kind, data[name]) for name, kind in kinds.items()}
        parts["run"] = dataclasses.replace(parts["run"], out=folder)
        rest = {name: data[name] for name in NAMES}
        return cls(**rest, **parts)


NAMES = ("algorithm", "task", "tokens", "members", "sha256")
PARTS: dict[str, Any] = {
    "run": LanguageRunOptions,
    "data": DataOptions,
    "policy": PolicyOptions,
    "reward": RewardOptions,
    "ptx": PtxOptions,
    "config": None,
    "optimizer": OptimizerConfig,
    "network": TransformerOptions,
    "sampling": SamplingOptions,
    "scorer": TransformerOptions,
}
PATHS = ("out", "data", "policy", "reward", "ptx")


def plain(value: Any) -> Any:
    """A dataclass, or a value of one, as JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def part(kind: Any, values: dict[str, Any] | None) -> Any:
    """A dataclass of the values that `plain` gave."""
    if values is None:
        return None

    def typed(name: str, value: Any) -> Any:
        if isinstance(value, list):
            return tuple(typed(name, item) for item in value)
        return Path(value) if name in PATHS and value is not None else value

    return kind(**{name: typed(name, value) for name, value in values.items()})


def params_shape(model: Transformer) -> PyTree:
    """Shapes of a model's parameters."""
    return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32)))


Run = Spec | LanguageSpec
