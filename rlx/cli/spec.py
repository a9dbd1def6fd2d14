"""What a run is, as data, and the presets."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

import rlx
from rlx.cli.algorithms import ALGORITHMS
from rlx.cli.options import OptimizerConfig, RunOptions
from rlx.envs.host import Gymnasium, unknown
from rlx.types import Algorithm, Env


@dataclass(frozen=True)
class Spec:
    """A whole run as data: what config.json holds."""

    unit: ClassVar[str] = "env_steps"  # what a run takes, as it is called in its files
    unit_words: ClassVar[str] = "environment steps"
    metric: ClassVar[str] = "episode_return"  # of its curve and its progress
    metric_words: ClassVar[str] = "return of training episodes"
    episodes: ClassVar[int] = 100  # of the final evaluation
    greedy: ClassVar[bool] = True  # which is of the mode of the policy
    digits: ClassVar[int] = 2  # of what it is measured by, behind the point

    algorithm: str
    env: str
    run: RunOptions
    config: Any
    optimizer: OptimizerConfig | None
    network: Any

    @property
    def seeds(self) -> list[int]:
        """The seeds of the run."""
        return list(range(self.run.seed, self.run.seed + self.run.seeds))

    @property
    def updates(self) -> int:
        """Algorithm steps of the run."""
        return (self.run.steps - self.prefill) // self.config.env_steps

    @property
    def place(self) -> str:
        """What it learns in."""
        return self.env

    @property
    def per_update(self) -> int:
        """Environment steps of an update."""
        return self.config.env_steps

    @property
    def host(self) -> bool:
        """Whether it leaves XLA: its seeds are processes then."""
        return isinstance(self.make_env(), Gymnasium)

    @property
    def evaluation(self) -> str:
        """How it is evaluated at its end, in words."""
        return f"greedy, {self.episodes} episodes each"

    @property
    def names(self) -> dict[str, str]:
        """What result.json says it was."""
        return {"algorithm": self.algorithm, "env": self.env}

    @property
    def prefill(self) -> int:
        """Environment steps per seed before the first update."""
        return ALGORITHMS[self.algorithm].prefill(self.config)

    def taken(self, updates: int) -> int:
        """Environment steps per seed after some updates."""
        return self.prefill + updates * self.config.env_steps

    def make_env(self) -> Env | Gymnasium:
        """Make the environment to train in."""
        return rlx.envs.gymnasium(self.env) if self.run.gymnasium else rlx.make(self.env)

    def make(self) -> tuple[Env | Gymnasium, Algorithm]:
        """Make the environment and the algorithm."""
        env = self.make_env()
        return env, self.build(env)

    def build(self, env: Env | Gymnasium) -> Algorithm:
        """Make the algorithm.

        Raises:
            ValueError: something about the run cannot work.
        """
        if self.updates < 1:
            before = f" after {self.prefill} to fill the replay" if self.prefill else ""
            raise ValueError(
                f"steps={self.run.steps} is less than one update, {self.config.env_steps} environment steps{before}"
            )
        return ALGORITHMS[self.algorithm].build(env, self.config, self.optimizer, self.network, self.updates)

    def to_json(self) -> dict[str, Any]:
        """Give the run as JSON values."""
        return {**dataclasses.asdict(self), "run": {**dataclasses.asdict(self.run), "out": str(self.run.out)}}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Spec:
        """Read what `to_json` gave.

        Raises:
            ValueError, KeyError, TypeError: it is something else.
        """
        entry = ALGORITHMS[data["algorithm"]]
        optimizer, network = data["optimizer"], data["network"]
        return cls(
            data["algorithm"],
            data["env"],
            RunOptions(**{**data["run"], "out": Path(data["run"]["out"])}),
            entry.config(**data["config"]),
            entry.network and OptimizerConfig(**optimizer),
            entry.network and entry.network(**{**network, "hidden": tuple(network["hidden"])}),
        )


def read_presets() -> dict[str, dict[str, dict[str, Any]]]:
    """Give the tuned values: algorithm, environment, field; `default` is every environment's; "none" is None."""
    found = tomllib.loads(files("rlx.cli").joinpath("presets.toml").read_text())
    none = {"none": None}  # TOML has no word for it
    return {
        algorithm: {
            env: {name: none.get(value, value) if isinstance(value, str) else value for name, value in values.items()}
            for env, values in envs.items()
        }
        for algorithm, envs in found.items()
    }


def preset(algorithm: str, env: str) -> Spec:
    """Give the run that `rlx train ALGORITHM ENV` does without flags: tuned values where there are any.

    Raises:
        ValueError: an unknown algorithm or environment; the nearest names are offered.
    """
    if algorithm not in ALGORITHMS:
        raise ValueError(unknown("algorithm", algorithm, ALGORITHMS) + f" (there are: {', '.join(ALGORITHMS)})")
    rlx.make(env)
    tuned = read_presets().get(algorithm, {})
    return fill(algorithm, env, {**tuned.get("default", {}), **tuned.get(env, {})})


def fill(algorithm: str, env: str, values: dict[str, Any]) -> Spec:
    """Make a run whose fields have these values, and the dataclasses' own where there are none."""
    entry, known = ALGORITHMS[algorithm], set()

    def part(kind: type) -> Any:
        names = {field.name for field in dataclasses.fields(kind)} & values.keys()
        known.update(names)
        return kind(**{name: tuple(v) if isinstance(v := values[name], list) else v for name in names})

    learns = (OptimizerConfig, entry.network) if entry.network else ()
    run, config, *rest = map(part, (RunOptions, entry.config, *learns))
    if values.keys() - known:
        raise ValueError(f"presets.toml: {algorithm}.{env} has no field {', '.join(values.keys() - known)}")
    optimizer, network = rest or (None, None)
    return Spec(algorithm, env, run, config, optimizer, network)
