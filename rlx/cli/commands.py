"""The commands, and how a mistake becomes one line."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import multiprocessing
import os
import queue
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import jax
import numpy as np

import rlx
from rlx.cli.options import ALGORITHMS, Spec, preset
from rlx.cli.report import draw_curve, provenance, statistics, write_json
from rlx.cli.train import EPISODES, Outcome, evaluate_group, make_group, restore, train_group, warn
from rlx.core.checkpoint import CheckpointError
from rlx.envs.host import Gymnasium, unknown

USAGE = f"""usage: rlx COMMAND ...

  rlx train ALGORITHM ENV [flags]   train, evaluate, and leave a run folder; `rlx train ALGORITHM ENV --help` for flags
  rlx eval RUN [flags]              evaluate the last checkpoint of a run; `rlx eval --help` for flags
  rlx resume RUN                    go on with a run that was stopped

algorithms: {", ".join(ALGORITHMS)}
environments: {", ".join(rlx.envs.JAX_ENVS)} (in JAX), and every id that gymnasium knows
"""


class UsageError(Exception):
    """A mistake of the user's; its text is the one line they see."""


@dataclass(frozen=True)
class EvalOptions:
    """How to evaluate."""

    episodes: int = 100  # whole episodes per seed
    gymnasium: bool = False  # play in gymnasium's own environment, also where rlx has a JAX one
    sampled: bool = False  # sample actions from the policy; default: greedy
    seed: int = 0  # of the environments and the sampling


def run(argv: list[str]) -> int:
    """Run one command and give the exit status."""
    age = process_age()
    commands = {"train": train, "eval": evaluate, "resume": resume}
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    try:
        if argv[0] not in commands:
            raise UsageError(unknown("command", argv[0], commands) + " (there are: train, eval, resume)")
        use_compilation_cache()
        return commands[argv[0]](argv[1:], Clock(time.perf_counter() - age, age))
    except (UsageError, CheckpointError) as error:
        warn(str(error))
        return 2
    except OSError as error:
        warn(f"{error.filename or 'input or output'}: {error.strerror or error}")
        return 1


class Clock(NamedTuple):
    """When the process began, and how long its imports took, s."""

    started: float
    import_s: float


def process_age() -> float:
    """Seconds since this process began, to 0.01 s; 0 where the system does not tell (it is not Linux)."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def use_compilation_cache() -> None:
    """Keep compiled programs in the user's cache folder; JAX_ENABLE_COMPILATION_CACHE=false turns it off."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        jax.config.update("jax_compilation_cache_dir", str(cache / "rlx" / "jax"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def train(argv: list[str], clock: Clock) -> int:
    """`rlx train ALGORITHM ENV [flags]`."""
    names = [word for word in argv[:2] if not word.startswith("-")]
    if len(names) < 2:
        if {"-h", "--help"} & set(argv):
            print(USAGE, end="")
            return 0
        raise UsageError("say what to train where: rlx train ALGORITHM ENV, such as: rlx train ppo CartPole-v1")
    with user_errors():
        default = preset(*names)
        fields = {name: getattr(default, name) for name in ("run", "config", "optimizer", "network")}
        given = parse(fields, argv[2:], f"rlx train {names[0]} {names[1]}")
        spec = dataclasses.replace(default, **given)
        out = spec.run.out or Path("runs", f"{names[0]}-{Path(names[1]).name}-{time.strftime('%Y%m%d-%H%M%S')}")
        spec = dataclasses.replace(spec, run=dataclasses.replace(spec.run, out=out))
        make_group(spec, spec.seeds[:1])  # what cannot work fails here, before a folder is made
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        hint = f"; `rlx resume {out}` goes on with it" if (out / "config.json").is_file() else ""
        raise UsageError(f"--out {out} is there already{hint}: name another folder or remove it")
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "config.json", spec.to_json())
    return carry_out(spec, out, clock)


def resume(argv: list[str], clock: Clock) -> int:
    """`rlx resume RUN`."""
    if {"-h", "--help"} & set(argv):
        print("usage: rlx resume RUN\n\nGo on with a run from its last checkpoint that is whole, to its end.")
        return 0
    folder, rest = one_folder(argv, "rlx resume RUN")
    if rest:
        raise UsageError(f"rlx resume takes the run folder alone, not {' '.join(rest)}: flags are in its config.json")
    spec = read_spec(folder)
    if (folder / "result.json").is_file():
        print(f"{folder} is finished: its result.json is there")
        return 0
    return carry_out(spec, folder, clock)


def evaluate(argv: list[str], clock: Clock) -> int:
    """`rlx eval RUN [flags]`."""
    folder, rest = (Path(), argv) if {"-h", "--help"} & set(argv) else one_folder(argv, "rlx eval RUN")
    with user_errors():
        options = parse({"eval": EvalOptions()}, rest, "rlx eval RUN")["eval"]
        if options.episodes < 1:
            raise UsageError(f"--episodes {options.episodes} must be 1 or more")
    spec = read_spec(folder)
    env = rlx.envs.gymnasium(spec.env) if options.gymnasium else spec.make_env()
    place = "gymnasium's" if isinstance(env, Gymnasium) else "rlx's JAX"
    means = []
    for seeds, path in groups(spec, folder):
        with user_errors():
            group = make_group(spec, seeds)
        restored = restore(group, path / "checkpoints", warn)
        if restored is None:
            raise UsageError(f"{path} has no checkpoint yet: nothing to evaluate")
        returns = evaluate_group(group, restored[1], env, options.episodes, not options.sampled, options.seed)
        for seed, row in zip(seeds, returns, strict=True):
            print(f"seed {seed}: return {row.mean():.2f} (std {row.std():.2f}, {row.min():.1f} to {row.max():.1f})")
            means.append(float(row.mean()))
    how = "sampled" if options.sampled else "greedy"
    summary = statistics(means)
    print(f"{spec.env}, {place} environment, {how}, {options.episodes} episodes a seed: {describe(summary)}")
    return 0


def carry_out(spec: Spec, out: Path, clock: Clock) -> int:
    """Train every group of a run, then write what it leaves."""
    stop = catch_signals()
    parts = groups(spec, out)
    with progress_bar(spec, len(parts)) as report:
        if len(parts) == 1:
            outcomes = [train_group(spec, spec.seeds, out, report, warn, lambda: stop.signal != 0)]
        else:
            outcomes = train_processes(spec, parts, report, stop)
            merge_rows([path for _, path in parts], out / "metrics.jsonl")
    if stop.signal and not all(outcome.finished for outcome in outcomes):
        done = min(outcome.update for outcome in outcomes)
        warn(f"stopped and saved after update {done} of {spec.updates}; go on with: rlx resume {shlex.quote(str(out))}")
        return 128 + stop.signal
    result = finish(spec, out, outcomes, clock)
    print(f"{spec.algorithm} {spec.env}, {spec.run.seeds} seeds, greedy, {EPISODES} episodes each: {describe(result)}")
    print(f"{result['env_steps_per_s']:,.0f} environment steps/s; result, curve and checkpoints are in {out}")
    return 1 if result["failed"] else 0


def finish(spec: Spec, out: Path, outcomes: list[Outcome], clock: Clock) -> dict[str, Any]:
    """Write curve.png and result.json."""
    failed = {seed: why for outcome in outcomes for seed, why in outcome.failed.items()}
    final = [value for outcome in outcomes for value in outcome.final_return]
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    try:
        draw_curve(out / "curve.png", rows, f"{spec.algorithm} on {spec.env}")
    except ImportError:
        warn("curve.png is not drawn, as matplotlib is missing: pip install 'rlx[plot]'")
    run_s = sum(outcome.run_s for outcome in outcomes) / min(len(outcomes), os.cpu_count() or 1)
    steps_here = sum(outcome.updates_here for outcome in outcomes) * spec.config.env_steps
    steps_here *= spec.run.seeds // len(outcomes)
    result = {
        "algorithm": spec.algorithm,
        "env": spec.env,
        "config": spec.to_json(),
        "seeds": spec.seeds,
        "env_steps": spec.updates * spec.config.env_steps,
        "final_return": final,
        **statistics([value for value in final if value is not None]),
        "failed": failed,
        "wall_s": round(time.perf_counter() - clock.started, 3),
        "import_s": round(clock.import_s, 3),
        "compile_s": round(max(outcome.compile_s for outcome in outcomes), 3),
        "run_s": round(run_s, 3),
        "env_steps_per_s": round(steps_here / run_s, 1) if run_s else None,
        **provenance(),
        "command": shlex.join(["rlx", *sys.argv[1:]]),
    }
    write_json(out / "result.json", result)
    return result


def groups(spec: Spec, folder: Path) -> list[tuple[list[int], Path]]:
    """Seeds that run together and their folders: all in one program, or over a host environment one by one."""
    if len(spec.seeds) == 1 or not isinstance(spec.make_env(), Gymnasium):
        return [(spec.seeds, folder)]
    return [([seed], folder / "seeds" / str(seed)) for seed in spec.seeds]


def train_processes(
    spec: Spec, parts: list[tuple[list[int], Path]], report: Callable[..., None], stop: Stop
) -> list[Outcome]:
    """Train groups in processes of their own, as many at once as there are cores."""
    context = multiprocessing.get_context("spawn")  # a fork would copy JAX's threads half
    with context.Manager() as manager, ProcessPoolExecutor(os.cpu_count(), context) as pool:
        updates, stopping = manager.Queue(), manager.Event()
        jobs = []
        for index, (seeds, folder) in enumerate(parts):
            folder.mkdir(parents=True, exist_ok=True)
            jobs.append(pool.submit(train_process, spec, seeds, folder, index, updates, stopping))
        while not all(job.done() for job in jobs):
            if stop.signal:
                stopping.set()
            with contextlib.suppress(queue.Empty):
                report(*updates.get(timeout=0.2))
        return [job.result() for job in jobs]


def train_process(spec: Spec, seeds: list[int], folder: Path, index: int, updates: Any, stopping: Any) -> Outcome:
    """Train one group in this process, which leaves signals to its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    use_compilation_cache()
    return train_group(
        spec, seeds, folder, lambda update, mean: updates.put((update, mean, index)), warn, stopping.is_set
    )


def merge_rows(folders: list[Path], file: Path) -> None:
    """Put the lines of metrics.jsonl of several groups side by side; a group that ended early has null from there."""
    runs = [[json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()] for folder in folders]
    longest = max(runs, key=len)
    with file.open("w") as merged:
        for index, template in enumerate(longest):
            rows = [run[index] if index < len(run) else {} for run in runs]
            row: dict[str, Any] = {
                name: [row.get(name, [None])[0] for row in rows] if isinstance(value, list) else value
                for name, value in template.items()
                if name not in ("failed", "kept_checkpoints")
            }
            row["time_s"] = max(row.get("time_s", 0.0) for row in rows)
            if failed := {seed: why for row in rows for seed, why in row.get("failed", {}).items()}:
                row["failed"] = failed
            merged.write(json.dumps(row) + "\n")


@dataclass
class Stop:
    """Which signal asked the run to save and leave; 0 for none."""

    signal: int = 0


def catch_signals() -> Stop:
    """Let SIGINT and SIGTERM ask for a stop; a second one ends the process at once."""
    stop = Stop()

    def ask(number: int, _: Any) -> None:
        stop.signal = number
        signal.signal(number, signal.SIG_DFL)

    signal.signal(signal.SIGINT, ask)
    signal.signal(signal.SIGTERM, ask)
    return stop


@contextlib.contextmanager
def progress_bar(spec: Spec, parts: int) -> Iterator[Callable[..., None]]:
    """Show one line for all seeds on standard error: steps per second, return, time left; gives what to report to."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[speed]} steps/s  return {task.fields[mean]}"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    shown = spec.run.progress and console.is_terminal
    done, begun = [0] * parts, time.perf_counter()
    means: list[float | None] = [None] * parts
    first: int | None = None
    # redrawn when told to and at most 5 times a second: a thread of its own would take time from the training
    with Progress(*columns, console=console, auto_refresh=False, disable=not shown) as progress:
        task = progress.add_task(f"{spec.algorithm} {spec.env}", total=spec.updates * parts, speed="-", mean="-")
        drawn = 0.0

        def report(update: int, mean: float | None, part: int = 0) -> None:
            nonlocal drawn, first
            done[part], means[part] = update, mean if mean is not None else means[part]
            first = sum(done) if first is None else first
            now = time.perf_counter()
            if now - drawn < 0.2 and sum(done) < spec.updates * parts:
                return
            drawn = now
            speed = (sum(done) - first) * spec.config.env_steps * spec.run.seeds / parts / (now - begun)
            known = [mean for mean in means if mean is not None]
            progress.update(
                task,
                completed=sum(done),
                speed=f"{speed:,.0f}",
                mean=f"{np.mean(known):.1f}" if known else "-",
                refresh=True,
            )

        yield report


def describe(summary: dict[str, Any]) -> str:
    """Say mean, IQM and interval in words."""
    if summary["mean"] is None:
        return "every seed failed"
    text = f"mean {summary['mean']:.2f}"
    if summary["ci95"] is not None:
        low, high = summary["ci95"]
        text += f", IQM {summary['iqm']:.2f}, 95 % interval of the mean {low:.2f} to {high:.2f}"
    return text


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Turn what goes wrong when the user's words are built into one line."""
    try:
        yield
    except (ValueError, ImportError, gym.error.Error) as error:
        raise UsageError(" ".join(str(error).split())) from error


def one_folder(argv: list[str], usage: str) -> tuple[Path, list[str]]:
    """Take the run folder off the front of the arguments."""
    if not argv or argv[0].startswith("-"):
        raise UsageError(f"say which run: {usage}")
    return Path(argv[0]), argv[1:]


def read_spec(folder: Path) -> Spec:
    """Read a run's config.json."""
    file = folder / "config.json"
    if not file.is_file():
        raise UsageError(f"{folder} is no run folder: it has no config.json")
    try:
        return Spec.from_json(json.loads(file.read_text()))
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{file} is broken: {error!r}") from error


def parse(defaults: dict[str, Any], argv: list[str], program: str) -> dict[str, Any]:
    """Read flags into dataclasses, whose fields and comments they are."""
    import tyro

    fields = [(name, type(value), dataclasses.field(default=value)) for name, value in defaults.items()]
    flags = dataclasses.make_dataclass("Flags", fields, frozen=True)
    output = io.StringIO()
    try:
        with contextlib.redirect_stderr(output):
            parsed, extra = tyro.cli(
                flags, prog=program, args=argv, return_unknown_args=True, config=(tyro.conf.OmitArgPrefixes,)
            )
    except SystemExit as error:
        if error.code == 0:  # --help
            raise
        lines = [line.strip("│ ") for line in output.getvalue().splitlines()]
        text = " ".join(lines[1 : next((i for i, line in enumerate(lines) if i and set(line) <= {"─"}), len(lines))])
        raise UsageError(text) from error
    if extra:
        known = [
            "--" + field.name.replace("_", "-") for value in defaults.values() for field in dataclasses.fields(value)
        ]
        raise UsageError(unknown("flag", extra[0], known) + f" (`{program} --help` lists them)")
    return {name: getattr(parsed, name) for name in defaults}
