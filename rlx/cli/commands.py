"""The commands."""

from __future__ import annotations

import dataclasses
import os
import shlex
import signal
import time
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import rlx
from rlx.cli.algorithms import ALGORITHMS
from rlx.cli.best_of_n import best_of_n_lines
from rlx.cli.export import export
from rlx.cli.language import GIVEN, LanguageSpec, Run
from rlx.cli.language_eval import TextEvalOptions, evaluate_language
from rlx.cli.language_flags import read_language
from rlx.cli.language_table import ALGORITHMS_OF_TEXT
from rlx.cli.metrics import failed_seeds, read_rows
from rlx.cli.overopt import is_overopt, overopt, resume_overopt
from rlx.cli.parsing import (
    UsageError,
    default_folder,
    make_folder,
    one_folder,
    parse,
    read_spec,
    user_errors,
    what_where,
)
from rlx.cli.plot import plot
from rlx.cli.presets import presets
from rlx.cli.processes import alone, catch_signals, groups, train_parts, use_compilation_cache
from rlx.cli.progress import progress_bar
from rlx.cli.report import Clock, describe, finish, statistics, write_json
from rlx.cli.spec import preset
from rlx.cli.sweep import sweep
from rlx.cli.tensorboard import require_tensorboard
from rlx.cli.train import evaluate_group, make_group, restore, state_of, warn
from rlx.cli.video import film, open_stage
from rlx.core.checkpoint import CheckpointError, save_checkpoint
from rlx.envs.bridge import HostEnvError
from rlx.envs.host import Gymnasium, unknown

USAGE = f"""usage: rlx COMMAND ...

  rlx train ALGORITHM ENV [flags]   train, evaluate, and leave a run folder; `rlx train ALGORITHM ENV --help` for flags
  rlx eval RUN [flags]              evaluate the last checkpoint of a run; `rlx eval --help` for flags
  rlx resume RUN                    go on with a run that was stopped
  rlx sweep ALGORITHM ENV [flags]   train many configurations and rank them; `rlx sweep --help`
  rlx export RUN [flags]            write the policy as files that need NumPy alone, or as a JAX program
  rlx plot RUN... [flags]           draw learning curves, or any metric, of one or several runs; `rlx plot --help`
  rlx presets [ALGORITHM [ENV]]     list the tuned presets; --json for machines

language, each with the flags that --help tells, in this order; eval, resume and plot take these runs too:
  rlx sft [TASK] [--data FILE...]   train a small transformer to imitate; from scratch, or from --policy RUN
  rlx reward-model [TASK] --policy RUN               learn from comparisons
  rlx rlhf | grpo [TASK] --policy RUN [--reward RUN] learn from rewards: the task's, or a reward model's
  rlx dpo [TASK] --policy RUN                        learn from comparisons without a reward model
  rlx best-of-n [TASK] --policy RUN [--reward RUN]   what the best of n responses is worth, for every n

  rlx overopt --preset quick --out DIR               what becomes of what is wanted under optimisation: a report
algorithms: {", ".join(ALGORITHMS)}
environments: {", ".join(rlx.envs.JAX_ENVS)} (in JAX), and every id that gymnasium knows
tasks of language: {", ".join(rlx.lm.TASKS)}
"""


@dataclass(frozen=True)
class EvalOptions:
    """How to evaluate."""

    episodes: int = 100  # whole episodes per seed
    gymnasium: bool = False  # play in gymnasium's own environment, also where rlx has a JAX one
    sampled: bool = False  # sample actions from the policy; default: greedy
    seed: int = 0  # of the environments and the sampling
    render: Path | None = None  # play one more episode into this clip, .mp4 or .gif; a file that is there is replaced
    render_seed: int | None = None  # the seed of the run that plays in it; default: the first that did not fail


def run(argv: list[str]) -> int:
    """Run one command and give the exit status."""
    age = process_age()
    commands = {
        "train": train,
        "eval": evaluate,
        "resume": resume,
        "sweep": sweep,
        "export": lambda argv, _: export(argv),
        "plot": lambda argv, _: plot(argv),
        "presets": lambda argv, _: presets(argv),
        "overopt": overopt,
    }
    commands |= {name: partial(train_language, name) for name in ALGORITHMS_OF_TEXT}
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    try:
        if argv[0] not in commands:
            raise UsageError(unknown("command", argv[0], commands) + f" (there are: {', '.join(commands)})")
        use_compilation_cache()
        return commands[argv[0]](argv[1:], Clock(time.perf_counter() - age, age))
    except (UsageError, CheckpointError) as error:
        warn(str(error))
        return 2
    except OSError as error:
        warn(f"{error.filename or 'input or output'}: {error.strerror or error}")
        return 1
    except HostEnvError as error:
        warn(" ".join(str(error).split()))
        return 1
    except BrokenExecutor:
        warn("a training process ended unexpectedly (out of memory?): `rlx resume` goes on from the last checkpoints")
        return 1
    except KeyboardInterrupt:  # before training began, or while evaluating: there is nothing to save
        warn("interrupted")
        return 128 + signal.SIGINT


def process_age() -> float:
    """Seconds since this process began, to 0.01 s; 0 where the system does not tell (it is not Linux)."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def train(argv: list[str], clock: Clock) -> int:
    """`rlx train ALGORITHM ENV [flags]`."""
    names = what_where(argv, "train", USAGE)
    if not names:
        return 0
    with user_errors():
        default = preset(*names)
        fields = {"run": default.run, "config": default.config}
        if default.network is not None:
            fields |= {"optimizer": default.optimizer, "network": default.network}
        given = parse(fields, argv[2:], f"rlx train {names[0]} {names[1]}")
        spec = dataclasses.replace(default, **given)
        out = spec.run.out or default_folder("", *names)
        spec = dataclasses.replace(spec, run=dataclasses.replace(spec.run, out=out))
        check(spec)
    make_folder(out)
    write_json(out / "config.json", spec.to_json())
    return carry_out(spec, out, clock)


def train_language(algorithm: str, argv: list[str], clock: Clock) -> int:
    """`rlx sft | reward-model | rlhf | grpo | dpo | best-of-n [TASK] [flags]`."""
    with user_errors():
        spec = read_language(algorithm, argv)
        check(spec)
    out = spec.run.out
    assert out is not None
    make_folder(out)
    if spec.given:
        save_checkpoint(out / GIVEN, 0, spec.given)
    write_json(out / "config.json", spec.to_json())
    for flag, report in spec.texts.reports.items():
        print(f"{flag}: {report}")
    return carry_out(spec, out, clock)


def resume(argv: list[str], clock: Clock) -> int:
    """`rlx resume RUN`."""
    if {"-h", "--help"} & set(argv):
        print("usage: rlx resume RUN\n\nGo on with a run from its last checkpoint that is whole, to its end.")
        return 0
    folder, rest = one_folder(argv, "rlx resume RUN")
    if rest:
        raise UsageError(f"rlx resume takes the run folder alone, not {' '.join(rest)}: flags are in its config.json")
    spec = None if is_overopt(folder) else read_spec(folder)
    if spec is not None:
        with user_errors():
            check(spec)
    if (folder / "result.json").is_file():
        print(f"{folder} is finished: its result.json is there")
        return 0
    return resume_overopt(folder, clock) if spec is None else carry_out(spec, folder, clock)


def evaluate(argv: list[str], clock: Clock) -> int:
    """`rlx eval RUN [flags]`."""
    helps = bool({"-h", "--help"} & set(argv))
    folder, rest = (Path(), argv) if helps and argv[0].startswith("-") else one_folder(argv, "rlx eval RUN")
    spec = None if folder == Path() else read_spec(folder)
    if isinstance(spec, LanguageSpec):
        with user_errors():
            evaluate_language(spec, folder, parse({"eval": TextEvalOptions()}, rest, "rlx eval RUN")["eval"])
        return 0
    with user_errors():
        options = parse({"eval": EvalOptions()}, rest, "rlx eval RUN")["eval"]
        if options.episodes < 1:
            raise UsageError(f"--episodes {options.episodes} must be 1 or more")
    assert spec is not None
    if options.render_seed not in (None, *spec.seeds):
        raise UsageError(f"--render-seed {options.render_seed}: the seeds of the run are {spec.seeds}")
    with user_errors():
        env = rlx.envs.gymnasium(spec.env) if options.gymnasium else spec.make_env()
        rlx.vectorize(env, 1)
        parts = [(make_group(spec, seeds), path) for seeds, path in groups(spec, folder)]
        stage = open_stage(env, options.render) if options.render else None
    player = None  # in the clip: its seed, algorithm and state
    place = "gymnasium's" if isinstance(env, Gymnasium) else "rlx's JAX"
    means = []
    for group, path in parts:
        restored = restore(group, path / "checkpoints", warn)
        if restored is None:
            raise UsageError(f"{path} has no checkpoint yet: nothing to evaluate")
        returns = evaluate_group(group, restored[1], env, options.episodes, not options.sampled, options.seed)
        failed = failed_seeds(read_rows(path / "metrics.jsonl"))
        for index, (seed, row) in enumerate(zip(group.seeds, returns, strict=True)):
            if seed in failed:
                print(failed[seed])
                continue
            print(f"seed {seed}: return {row.mean():.2f} (std {row.std():.2f}, {row.min():.1f} to {row.max():.1f})")
            means.append(float(row.mean()))
            if player is None and options.render_seed in (None, seed):
                player = seed, group.algorithm, state_of(group, restored[1], index)
    how = "sampled" if options.sampled else "greedy"
    summary = statistics(means)
    print(f"{spec.env}, {place} environment, {how}, {options.episodes} episodes a seed: {describe(summary)}")
    if stage and options.render:
        if player is None:
            raise UsageError("no clip: the seed that should play in it failed")
        seed, algorithm, state = player
        told = film(stage, options.render, algorithm, state, not options.sampled, options.seed)
        print(f"clip of seed {seed}, {how}, {told}")
    return 0


def check(spec: Run) -> None:
    """Raise what building the run raises: before a folder is made, and before training."""
    make_group(spec, spec.seeds[:1])
    if spec.run.tensorboard:
        require_tensorboard()


def carry_out(spec: Run, out: Path, clock: Clock) -> int:
    """Train every group of a run, then write what it leaves."""
    stop = catch_signals()
    parts = groups(spec, out)
    rows = spec.per_update * spec.run.seeds // len(parts)
    title, word = f"{spec.algorithm} {spec.place}", spec.metric.removeprefix("episode_")
    shown = spec.run.progress, word, spec.digits - 1
    with alone(out), progress_bar(title, spec.updates, rows, len(parts), *shown) as report:
        outcomes = train_parts(spec, out, parts, report, stop)
    if stop.signal and not all(outcome.finished for outcome in outcomes):
        done = min(outcome.update for outcome in outcomes)
        warn(f"stopped and saved after update {done} of {spec.updates}; go on with: rlx resume {shlex.quote(str(out))}")
        return 128 + stop.signal
    result = finish(spec, out, parts, outcomes, clock)
    print(f"{title}, {spec.run.seeds} seeds, {spec.evaluation}: {describe(result, spec.digits)}")
    for line in best_of_n_lines(result.get("best_of_n", [])):
        print(line)
    rate = result[f"{spec.unit}_per_s"]
    speed = f"{rate:,.0f} {spec.unit_words}/s; " if rate else ""
    print(f"{speed}result, curve and checkpoints are in {out}")
    return 1 if result["failed"] else 0
